"""CARIS's parts: prompts, BERT that reads them, the head; and images that are encoded once."""

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

from nemo_mmseg.models.decode_heads.caris_head import CARISHead
from nemo_mmseg.models.necks.caris_neck import CARISNeck, LanguagePrompts
from nemo_mmseg.models.structures import TextFeatures
from nemo_mmseg.models.text_encoders.bert_text_encoder import BERTTextEncoder
from nemo_mmseg.models.text_encoders.prompted_bert_text_encoder import PromptedBERTTextEncoder

init_default_scope('mmseg')
WORDS = '[PAD] [UNK] [CLS] [SEP] [MASK] the red left ring one'.split()
BERT = dict(
    vocab_size=len(WORDS),
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=32,
    initializer_range=0.5,
)
SEVEN = ['red ring', 'left ring', 'the red one', 'ring', 'left', 'the left one', 'one']


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
    folder = tmp_path_factory.mktemp('bert')
    (folder / 'vocab.txt').write_text('\n'.join(WORDS) + '\n')
    return str(folder)


@pytest.fixture
def berts(vocabulary):
    """A BERT without and one with prompts, with the same weights."""
    settings = dict(model=vocabulary, config=BERT, pretrained=False, context_length=8)
    torch.manual_seed(0)
    plain = BERTTextEncoder(**settings).double().eval()
    prompted = PromptedBERTTextEncoder(**settings).double().eval()
    prompted.load_state_dict(plain.state_dict())
    return plain, prompted


def test_without_prompts_it_is_bert(berts):
    plain, prompted = berts
    expected = plain(SEVEN)
    text = prompted(SEVEN)
    found = prompted.condition(text, [torch.zeros(7, 0, 16).double()])
    real = expected.mask
    torch.testing.assert_close(found.words[real], expected.words[real])
    assert torch.equal(found.mask, real) and found.sentence is None


def test_prompts_are_read_as_words_behind_the_padding(berts):
    """Prompts that are the embeddings of words do what the words would do in their place."""
    plain, prompted = berts
    ids = torch.tensor([[2, 6, 8, 3, 0, 0], [2, 7, 8, 5, 6, 3]])
    mask = ids > 0
    more = torch.tensor([[9, 4, 1]]).expand(2, -1)
    long, seen = torch.cat((ids, more), 1), torch.cat((mask, more > 0), 1)
    prompts = plain.bert.embeddings(input_ids=long)[:, 6:]
    text = prompted.condition(prompted.encode(ids, mask), ['a map', prompts])
    expected = plain.encode(long, seen).words[:, :6]
    assert text.words.shape == (2, 6, 16)
    torch.testing.assert_close(text.words[mask], expected[mask])


def test_each_expression_reads_the_prompts_of_its_image(berts):
    prompted = berts[1]
    prompts = torch.randn(2, 3, 16).double()
    text = prompted(SEVEN).of_images([4, 3])
    together = prompted.condition(text, [prompts]).words
    alone = prompted.condition(prompted(SEVEN[5:6]), [prompts[1:]]).words
    torch.testing.assert_close(together[5:6], alone)
    other = prompted.condition(prompted(SEVEN[5:6]), [prompts[:1]]).words
    assert not torch.allclose(other, alone, rtol=1e-2)


def test_prompts_are_of_the_whole_image_and_of_its_quarters():
    torch.manual_seed(0)
    prompts, x = LanguagePrompts(4, 6).double(), torch.randn(2, 4, 3, 5).double()
    # of an odd side the middle row and column belong to both halves
    rows, columns = (slice(0, 2), slice(1, 3)), (slice(0, 3), slice(2, 5))
    cells = [x] + [x[:, :, r, c] for r in rows for c in columns]
    means = torch.stack([cell.mean((2, 3)) for cell in cells], 1)
    whole, quarters = prompts.mlps
    expected = torch.cat((whole(means[:, :1]), quarters(means[:, 1:])), 1) + prompts.learned
    expected = expected - expected.mean(-1, keepdim=True)
    expected = expected / (expected.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(prompts(x), expected)


def test_initial_values():
    torch.manual_seed(0)
    neck, head = CARISNeck((8, 16, 32, 256), 64, 192), CARISHead(8, 64, 192, num_layers=2)
    neck.init_weights()
    head.init_weights()
    layer = head.layers[1]
    for linear in (
        neck.prompts.mlps[1][0],
        layer.token_pixel_attention.key,
        layer.token_attention.out,
        layer.token_ffn[2],
    ):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert not linear.bias.any()
    assert (layer.token_scale == 1).all() and (layer.pixel_scale == 1).all()
    # deformable attention keeps its own start, the rest PyTorch's and mmcv's
    assert layer.pixel_layer.attention.sampling_offsets.bias.any()
    assert not layer.pixel_layer.attention.sampling_offsets.weight.any()
    assert head.word_proj.weight.abs().max().item() == pytest.approx(192**-0.5, rel=0.01)
    assert neck.levels[2].conv.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.1)
    for table in (head.level_codes, head.prompts, neck.prompts.learned):
        assert 0.8 < table.std().item() < 1.2


def head_and_inputs():
    torch.manual_seed(0)
    head = CARISHead(8, 32, 16, num_layers=2, num_heads=4, num_prompts=3).double().eval()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.3)
    sizes = [(16, 12), (8, 6), (4, 3), (2, 2)]
    channels = [8, 32, 32, 32]
    feats = [torch.randn(2, c, *size).double() for c, size in zip(channels, sizes)]
    words = torch.randn(3, 5, 16).double()
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]).bool()
    text = TextFeatures(words, mask, None, torch.tensor([0, 0, 1]))
    return head, [*feats, torch.zeros(2, 5, 16).double()], text


def test_the_head_does_not_look_at_padding():
    head, feats, text = head_and_inputs()
    logits = head(feats, text).logits
    assert logits.shape == (3, 2, 16, 12) and logits.std() > 1e-3
    text.words = text.words.masked_fill(~text.mask[..., None], 7.0)
    torch.testing.assert_close(head(feats, text).logits, logits)
    text.words[1, 1] += 1
    assert not torch.allclose(head(feats, text).logits[1], logits[1])


def test_background_is_compared_with_the_mean_prompt_and_the_object_with_cls():
    head, feats, text = head_and_inputs()
    last = []
    head.layers[-1].register_forward_hook(lambda module, args, output: last.append(output[0]))
    with torch.no_grad():
        _, classes = head.decode(feats[1:4], text)
    words = text.words.shape[1]
    assert last[0].shape[1] == words + 3
    torch.testing.assert_close(classes[:, 0], last[0][:, words:].sum(dim=1) / 3)
    torch.testing.assert_close(classes[:, 1], last[0][:, 0])


@pytest.fixture
def config(vocabulary):
    """A narrow CARIS."""
    return dict(
        type='ReferringSegmentor',
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[0] * 3, std=[1] * 3),
        text_encoder=dict(
            type='PromptedBERTTextEncoder',
            model=vocabulary,
            config=BERT,
            pretrained=False,
            context_length=8,
        ),
        backbone=dict(
            type='PlainSwinTransformer',
            embed_dims=8,
            depths=(1, 1, 1, 1),
            num_heads=(1, 1, 2, 2),
            window_size=4,
        ),
        neck=dict(type='CARISNeck', in_channels=(8, 16, 32, 64), channels=32, word_channels=16),
        decode_head=dict(
            type='CARISHead', fine_channels=8, channels=32, word_channels=16, num_layers=2
        ),
        test_cfg=dict(protocol=dict(type='LAVTProtocol', size=(96, 96))),
    )


@pytest.mark.parametrize('chunk_size', [2, 32])
def test_an_image_is_encoded_once_for_all_its_expressions(config, sample, chunk_size):
    config['test_cfg']['chunk_size'] = chunk_size
    torch.manual_seed(0)
    model = MODELS.build(config).double().eval()
    calls, names = [], ('backbone', 'neck.levels.0', 'neck.prompts')
    for name in names:
        module = model.get_submodule(name)
        module.register_forward_hook(lambda m, args, out, name=name: calls.append(name))
    images = torch.randn(2, 3, 64, 64).double()
    texts = [SEVEN, SEVEN[2:5]]
    with torch.no_grad():
        together = model(images, [sample(several) for several in texts])
        assert sorted(calls) == sorted(names)
        alone = [
            model(image[None], [sample([one])])
            for image, several in zip(images, texts)
            for one in several
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-9, atol=1e-9)


def test_the_inferencer_takes_it(config, tmp_path):
    from mmengine.config import Config

    from nemo_mmseg.apis.inference import ReferringInferencer

    torch.manual_seed(0)
    model = MODELS.build(config)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'caris.pth')
    load = [dict(type='LoadReferringImage'), dict(type='Resize', scale=(64, 64), keep_ratio=False)]
    dataset = dict(pipeline=[*load, dict(type='PackReferringInputs')])
    cfg = Config(dict(default_scope='mmseg', model=config, test_dataloader=dict(dataset=dataset)))
    inferencer = ReferringInferencer(cfg, tmp_path / 'caris.pth', device='cpu')
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    found = inferencer(image, SEVEN)
    assert found['masks'].shape == (7, 40, 50) and found['masks'].dtype == bool
