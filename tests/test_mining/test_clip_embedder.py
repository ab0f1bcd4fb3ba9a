"""open_clip models as embedders: exact, and independent of what else is embedded."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from nemo_mmseg.mining.clip_embedder import ClipEmbedder
from nemo_mmseg.mining.embed import distinct_texts


@pytest.fixture(scope='module')
def embedder(tiny, shared_folder):
    tiny.register_clip(shared_folder)
    return ClipEmbedder(tiny.MODEL, shared_folder + '/weights.pt', batch_size=5)


def encode(embedder, texts):
    """Vectors of texts, each with others of its length."""
    ids, lengths = embedder.tokenize(texts)
    vectors = [None] * len(texts)
    for length in set(lengths):
        which = [i for i, n in enumerate(lengths) if n == length]
        for start in range(0, len(which), embedder.batch_size):
            part = which[start : start + embedder.batch_size]
            for i, vector in zip(part, embedder.encode(ids[part, :length])):
                vectors[i] = vector
    return np.stack(vectors)


@pytest.fixture(scope='module')
def texts(tiny, shared_folder):
    return distinct_texts(tiny.TinyData(shared_folder).expressions()[1])[0]


def test_images_equal_open_clip(tiny, shared_folder, embedder):
    pool = tiny.TinyData(shared_folder).pool
    images = torch.stack([embedder.preprocess(Image.open(pool.path(row))) for row in range(5)])
    with torch.no_grad():
        expected = embedder.clip.encode_image(images, normalize=True).numpy()
    np.testing.assert_allclose(embedder.images(images), expected, atol=1e-5)


def test_cut_context_gives_the_vectors_of_the_full_one(embedder, texts):
    with torch.no_grad():
        expected = embedder.clip.encode_text(embedder.tokenizer(texts), normalize=True).numpy()
    np.testing.assert_allclose(encode(embedder, texts), expected, atol=1e-5)
    np.testing.assert_allclose(encode(embedder, texts[:6]), expected[:6], atol=1e-5)
    # The texts do differ, and one that is too long for the context is cut as open_clip does.
    assert np.abs(expected - expected[0]).max() > 0.1
    long = ['red ' * 200]
    with torch.no_grad():
        expected = embedder.clip.encode_text(embedder.tokenizer(long), normalize=True).numpy()
    np.testing.assert_allclose(encode(embedder, long), expected, atol=1e-5)


def test_the_context_is_cut_indeed(tiny, shared_folder):
    embedder = ClipEmbedder(tiny.MODEL, shared_folder + '/weights.pt')
    lengths = []
    embedder.clip.transformer.register_forward_pre_hook(
        lambda module, inputs: lengths.append(inputs[0].shape[1])
    )
    encode(embedder, ['red dog', 'dog'])
    assert sorted(lengths) == [3, 4]


def test_long_contexts_are_cut_less_finely(embedder):
    words = ' '.join(['red'] * 40).split()
    _, lengths = embedder.tokenize([' '.join(words[:n]) for n in (1, 14, 15, 22, 23, 40)])
    assert lengths == [3, 16, 24, 24, 32, 48]
    _, lengths = embedder.tokenize(['red ' * 74, 'red ' * 200])
    assert lengths == [77, 77]


def test_a_vector_does_not_depend_on_its_batch(tiny, shared_folder, embedder, texts):
    """Not even in its last bit: what else a run embeds must not change its bank."""
    data = tiny.TinyData(shared_folder)
    images = torch.stack(
        [embedder.preprocess(Image.open(data.pool.path(i)).convert('RGB')) for i in range(12)]
    )
    some = [text for text in texts if len(text.split()) == 5]
    ids, lengths = embedder.tokenize(some)
    assert len(set(lengths)) == 1 and len(some) >= 12
    ids = ids[:, : lengths[0]]
    for call, inputs in ((embedder.images, images), (embedder.encode, ids)):
        alone = np.concatenate([call(inputs[i : i + 1]) for i in range(12)])
        for order in (range(12), range(11, -1, -1), [4, 1, 9, 2, 3, 5, 0, 10, 11, 6, 8, 7]):
            for start in range(0, 12, 5):
                part = list(order)[start : start + 5]
                np.testing.assert_array_equal(call(inputs[part]), alone[part])


def test_an_encoder_has_one_digest_in_every_process_and_on_each_kind_of_machine(
    embedder, monkeypatch
):
    steps = [lambda image: image.convert('RGB'), transforms.ToTensor()]
    monkeypatch.setattr(embedder, 'preprocess', transforms.Compose(steps))
    before = embedder.digest('w')
    # A function has another address in another process.
    steps[0] = lambda image: image.convert('RGB')
    monkeypatch.setattr(embedder, 'preprocess', transforms.Compose(steps))
    assert embedder.digest('w') == before != embedder.digest('other weights')
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: 'another')
    assert embedder.digest('w') != before


def custom_embedder(tiny, folder, **text_settings):
    """An embedder of a CLIP whose text encoder is a module of its own."""
    import open_clip

    name = 'NeMo-Test-' + '-'.join(map(str, text_settings))
    config = dict(tiny.CONFIG, custom_text=True)
    config['text_cfg'] = dict(config['text_cfg'], **text_settings)
    (folder / f'{name}.json').write_text(json.dumps(config))
    open_clip.add_model_config(folder / f'{name}.json')
    return ClipEmbedder(name, None)


@pytest.mark.parametrize(
    ('settings', 'cut'),
    [
        (dict(pool_type='argmax'), True),
        (dict(pool_type='last'), False),
        (dict(no_causal_mask=True), False),
        (dict(embed_cls=True), False),
    ],
)
def test_only_exact_cuts_are_made(tiny, tmp_path, settings, cut):
    embedder = custom_embedder(tiny, tmp_path, **settings)
    assert (max(embedder.tokenize(['red dog'])[1]) < 77) == cut
    texts = ['red dog', 'a man on the left']
    with torch.no_grad():
        expected = embedder.clip.encode_text(embedder.tokenizer(texts), normalize=True).numpy()
    np.testing.assert_allclose(encode(embedder, texts), expected, atol=1e-5)
