from pathlib import Path

import open_clip
import pytest
import torch
from mmseg.registry import MODELS

from nemo_mmseg.models.text_encoders.open_clip_text_encoder import OpenCLIPTextEncoder


def encoder(tiny_clip, **changes):
    settings = dict(type='OpenCLIPTextEncoder', model=tiny_clip[0], pretrained=tiny_clip[1])
    built = MODELS.build({**settings, **changes})
    built.init_weights()
    return built.eval()


def test_equals_the_text_encoder_of_open_clip(tiny_clip):
    clip = open_clip.create_model(tiny_clip[0], pretrained=tiny_clip[1]).eval()
    tokenizer = open_clip.get_tokenizer(tiny_clip[0])
    texts = ['red ring', 'the left ring', '']
    with torch.no_grad():
        expected = clip.encode_text(tokenizer(texts))
        full, short = encoder(tiny_clip)(texts), encoder(tiny_clip, context_length=16)(texts)
    torch.testing.assert_close(full.sentence, expected)
    # causal: what comes after the end token changes nothing
    torch.testing.assert_close(short.sentence, expected)
    assert full.words.shape == (3, 32, 16) and short.words.shape == (3, 16, 16)
    torch.testing.assert_close(short.words, full.words[:, :16])


def test_ids_of_a_small_vocabulary(tiny_clip):
    built = encoder(tiny_clip, context_length=8)
    tokenizer = open_clip.get_tokenizer(tiny_clip[0])
    sot, eot = tokenizer.sot_token_id, tokenizer.eot_token_id
    assert (sot, eot) == (520, 521)
    ids, mask = built.tokenize(['red ring', 'a b c d e f g h'])
    known = tokenizer.encoder
    assert ids[0].tolist() == [sot, known['red</w>'], known['ring</w>'], eot, 0, 0, 0, 0]
    assert mask[0].tolist() == [True] * 4 + [False] * 4
    # too long: cut, and the end token takes the last place
    assert ids[1].tolist() == [sot, *(known[f'{c}</w>'] for c in 'abcdef'), eot]
    assert mask[1].all()


def test_a_long_expression_can_lose_its_end(tiny_clip):
    built = encoder(tiny_clip, context_length=8, keep_end=False)
    texts = ['red ring', 'a b c d e f g h', 'h g f e d c b a']
    ids, _ = built.tokenize(texts)
    assert ids.shape == (3, 8)
    assert (ids == 521).sum(1).tolist() == [1, 0, 0]
    kept = encoder(tiny_clip, context_length=8)
    assert torch.equal(kept.tokenize(texts)[0][1:, :7], ids[1:, :7])
    with torch.no_grad():
        found, wanted = built(texts).sentence, kept(texts).sentence
    torch.testing.assert_close(found[0], wanted[0])
    # published so: all long expressions are one
    assert torch.equal(found[1], found[2]) and not torch.allclose(wanted[1], wanted[2])


def test_words_alone_need_no_projection(tiny_clip):
    built, whole = encoder(tiny_clip, sentence=False), encoder(tiny_clip)
    with torch.no_grad():
        found = built(['red ring'])
        assert torch.equal(found.words, whole(['red ring']).words)
    assert found.sentence is None
    missing = whole.state_dict().keys() - built.state_dict().keys()
    assert missing == {'tower.text_projection'}


@pytest.mark.parametrize('text', ['🙂', '左边的红圈', 'naïve ☂ ring', '\x00\n', ''])
def test_unknown_characters_have_a_defined_result(tiny_clip, text):
    built = encoder(tiny_clip, context_length=12)
    ids, mask = built.tokenize([text])
    assert ids.shape == (1, 12) and 0 <= ids.min() and ids.max() < 522
    assert ids[0, 0] == 520 and (ids[0] == 521).sum() == 1
    with torch.no_grad():
        first, second = built([text]), built([text, 'ring'])
    assert torch.isfinite(first.sentence).all()
    torch.testing.assert_close(first.sentence[0], second.sentence[0])


def test_weights_are_loaded_by_init_weights_only(tiny_clip):
    settings = dict(type='OpenCLIPTextEncoder', model=tiny_clip[0], pretrained=tiny_clip[1])
    torch.manual_seed(1)
    built = MODELS.build(settings)
    stored = torch.load(tiny_clip[1], weights_only=True)['token_embedding.weight']
    assert not torch.equal(built.tower.token_embedding.weight, stored)
    built.init_weights()
    assert torch.equal(built.tower.token_embedding.weight, stored)


def test_only_the_text_encoder_is_built(tiny_clip):
    names = [name for name, _ in encoder(tiny_clip).named_parameters()]
    assert names and not any('visual' in name or 'logit_scale' in name for name in names)


def test_bad_settings_are_clear_errors(tiny_clip, tmp_path):
    with pytest.raises(ValueError, match="unknown CLIP model 'RN5O'"):
        OpenCLIPTextEncoder('RN5O')
    with pytest.raises(ValueError, match='context_length must be 3 to 32'):
        OpenCLIPTextEncoder(tiny_clip[0], context_length=33)
    missing = str(tmp_path / 'no.pt')
    with pytest.raises(FileNotFoundError, match='no.pt'):
        encoder(tiny_clip, pretrained=missing)
    wrong = tmp_path / 'wrong.pt'
    torch.save(dict(weight=torch.zeros(1)), wrong)
    with pytest.raises(RuntimeError, match='(?s)wrong.pt.*TestTinyCLIP.*positional_embedding'):
        encoder(tiny_clip, pretrained=str(wrong))
    stored = Path(tiny_clip[1]).read_bytes()
    for name, content in (('cut.pt', stored[:1000]), ('empty.pt', b''), ('cut.safetensors', b'1')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises((ValueError, RuntimeError), match=name):
            encoder(tiny_clip, pretrained=str(tmp_path / name))


def test_weights_from_an_archive_like_openais(tmp_path):
    """OpenAI's own files are TorchScript; open_clip's model with the same names takes them."""
    import json

    config = dict(
        embed_dim=8,
        quick_gelu=True,
        vision_cfg=dict(image_size=32, layers=[1, 1, 1, 1], width=4),
        text_cfg=dict(width=8, heads=2, layers=1, vocab_size=49408),
    )
    for name in ('TestArchive', 'TestArchive-quickgelu'):
        config['quick_gelu'] = name.endswith('quickgelu')
        (tmp_path / f'{name}.json').write_text(json.dumps(config))
        open_clip.add_model_config(tmp_path / f'{name}.json')
    clip = open_clip.create_model('TestArchive-quickgelu').eval()
    clip.attn_mask = None  # their archives do not hold it either, but these three numbers
    for name in ('input_resolution', 'context_length', 'vocab_size'):
        clip.__dict__.pop(name, None)
        clip.register_buffer(name, torch.tensor(1))
    seen = torch.rand(1, 3, 32, 32), torch.ones(1, 77, dtype=torch.long)
    script = torch.jit.trace(clip, seen, check_trace=False)
    script.save(str(tmp_path / 'clip.pt'))
    built = OpenCLIPTextEncoder('TestArchive-quickgelu', str(tmp_path / 'clip.pt'))
    built.init_weights()
    assert torch.equal(built.tower.text_projection, clip.text_projection)
    built = OpenCLIPTextEncoder('TestArchive', str(tmp_path / 'clip.pt'))
    with pytest.raises(ValueError, match='TestArchive-quickgelu'):
        built.init_weights()
