import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from nemo_mmseg.mining import embed as embed_module
from nemo_mmseg.mining.clip_embedder import ClipEmbedder
from nemo_mmseg.mining.embed import distinct_texts, embed_images, embed_texts
from nemo_mmseg.mining.shards import ShardStore
from nemo_mmseg.mining.vectors import EmbeddingCache, text_key
from nemo_mmseg.utils.dist import ordered_map, same_every_time


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


def texts_of(tiny, folder):
    return distinct_texts(tiny.TinyData(folder).expressions()[1])


def test_images_equal_open_clip(tiny, shared_folder, embedder, tmp_path):
    pool = tiny.TinyData(shared_folder).pool
    store = ShardStore(tmp_path, 'images', len(pool), 16, 'd')
    embed_images(embedder, pool, store, range(len(store)), num_workers=0)
    vectors = np.concatenate([store.read(i) for i in range(len(store))])
    for row in (0, 15, 16, 39):
        image = embedder.preprocess(Image.open(pool.path(row)))[None]
        with torch.no_grad():
            truth = embedder.clip.encode_image(image, normalize=True)[0].numpy()
        np.testing.assert_allclose(vectors[row], truth, atol=1e-5)


def test_cut_context_gives_the_vectors_of_the_full_one(tiny, shared_folder, embedder):
    texts, _ = texts_of(tiny, shared_folder)
    assert embedder._cuttable is not None
    with torch.no_grad():
        truth = embedder.clip.encode_text(embedder.tokenizer(texts), normalize=True).numpy()
    np.testing.assert_allclose(encode(embedder, texts), truth, atol=1e-5)
    np.testing.assert_allclose(encode(embedder, texts[:6]), truth[:6], atol=1e-5)
    # The texts do differ, and one that is too long for the context is cut as open_clip does.
    assert np.abs(truth - truth[0]).max() > 0.1
    long = ['red ' * 200]
    with torch.no_grad():
        truth = embedder.clip.encode_text(embedder.tokenizer(long), normalize=True).numpy()
    np.testing.assert_allclose(encode(embedder, long), truth, atol=1e-5)


def test_the_context_is_cut_indeed(embedder, monkeypatch):
    lengths = []
    real = embedder._text_tower().clip.transformer.forward

    def spy(x, *args, **kwargs):
        lengths.append(x.shape[1])
        return real(x, *args, **kwargs)

    monkeypatch.setattr(embedder._text_tower().clip.transformer, 'forward', spy)
    encode(embedder, ['red dog', 'dog'])
    assert sorted(lengths) == [3, 4]


def test_long_contexts_are_cut_less_finely(embedder):
    words = ' '.join(['red'] * 40).split()
    _, lengths = embedder.tokenize([' '.join(words[:n]) for n in (1, 14, 15, 22, 23, 40)])
    assert lengths == [3, 16, 24, 24, 32, 48]
    _, lengths = embedder.tokenize(['red ' * 74, 'red ' * 200])
    assert lengths == [77, 77]


def test_a_vector_does_not_depend_on_its_batch(tiny, shared_folder, embedder):
    """Not even in its last bit: what else a run embeds must not change its bank."""
    data = tiny.TinyData(shared_folder)
    images = torch.stack(
        [embedder.preprocess(Image.open(data.pool.path(i)).convert('RGB')) for i in range(12)]
    )
    texts = [text for text in texts_of(tiny, shared_folder)[0] if len(text.split()) == 5]
    ids, lengths = embedder.tokenize(texts)
    assert len(set(lengths)) == 1 and len(texts) >= 12
    ids = ids[:, : lengths[0]]
    for call, inputs in ((embedder.images, images), (embedder.encode, ids)):
        alone = np.concatenate([call(inputs[i : i + 1]) for i in range(12)])
        for order in (range(12), range(11, -1, -1), [4, 1, 9, 2, 3, 5, 0, 10, 11, 6, 8, 7]):
            for start in range(0, 12, 5):
                part = list(order)[start : start + 5]
                np.testing.assert_array_equal(call(inputs[part]), alone[part])


def test_a_tower_is_the_same_in_every_process(embedder, monkeypatch):
    steps = [lambda image: image.convert('RGB'), transforms.ToTensor()]
    monkeypatch.setattr(embedder, 'preprocess', transforms.Compose(steps))
    before = embedder.tower()
    steps[0] = lambda image: image.convert('RGB')
    monkeypatch.setattr(embedder, 'preprocess', transforms.Compose(steps))
    assert 'ToTensor' in before['preprocess'] and ' at 0x' not in before['preprocess']
    assert embedder.tower() == before


def custom_tower(tiny, folder, **text_settings):
    """An embedder of a CLIP whose text tower is a module of its own."""
    import json

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
    embedder = custom_tower(tiny, tmp_path, **settings)
    assert (embedder._cuttable is not None) == cut
    texts = ['red dog', 'a man on the left']
    with torch.no_grad():
        truth = embedder.clip.encode_text(embedder.tokenizer(texts), normalize=True).numpy()
    np.testing.assert_allclose(encode(embedder, texts), truth, atol=1e-5)


def test_distinct_texts():
    texts = ['big dog', 'a', 'big dog', 'dog', 'cat', 'a']
    distinct, index = distinct_texts(texts)
    assert distinct == ['a', 'cat', 'dog', 'big dog']
    assert [distinct[i] for i in index] == texts


def test_shards_do_not_depend_on_order_workers_or_threads(tiny, shared_folder, embedder, tmp_path):
    data = tiny.TinyData(shared_folder)
    texts, _ = texts_of(tiny, shared_folder)
    variants = dict(one=(1, 0, False), two=(3, 2, True))
    before = torch.get_num_threads()
    for name, (threads, workers, reverse) in variants.items():
        torch.set_num_threads(threads)
        images = ShardStore(tmp_path / name, 'images', 40, 16, 'd')
        sentences = ShardStore(tmp_path / name, 'texts', len(texts), 16, 'd')
        for store, call in ((images, 'i'), (sentences, 't')):
            shards = list(range(len(store)))
            # As two ranks would: each its own.
            for part in (shards[1::2], shards[::2]) if reverse else (shards,):
                if call == 'i':
                    embed_images(embedder, data.pool, store, part, workers)
                else:
                    embed_texts(embedder, texts, store, part)
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    files = sorted(p.name for p in (tmp_path / 'one').iterdir())
    assert files == sorted(p.name for p in (tmp_path / 'two').iterdir())
    for name in files:
        assert (tmp_path / 'one' / name).read_bytes() == (tmp_path / 'two' / name).read_bytes()


@pytest.mark.parametrize('workers', [0, 2])
def test_unreadable_image_is_named(tiny, own_folder, embedder, tmp_path, workers):
    (own_folder / 'image_021.jpg').write_bytes(b'not an image')
    pool = tiny.TinyData(own_folder).pool
    store = ShardStore(tmp_path / 'shards', 'images', len(pool), 16, 'd')
    with pytest.raises(ValueError, match='cannot read the image .*image_021.jpg'):
        embed_images(embedder, pool, store, range(len(store)), workers)
    # Its shard is not there, and those that are there are whole.
    written = [i for i in range(3) if store.path(i).exists()]
    assert 1 not in written and store.missing(written) == []


def test_texts_of_rare_lengths_do_not_wait_for_ever(tiny, embedder, tmp_path, monkeypatch):
    """Every shard before the rare text is written long before the last one."""
    monkeypatch.setattr(embed_module, '_LONGEST_WAIT', 20)
    texts = ['red dog under a tree', *[f'{n} dog' for n in 'abcdefghij'] * 10]
    store = ShardStore(tmp_path, 'texts', len(texts), 10, 'd')
    written = []
    monkeypatch.setattr(store, 'write', lambda shard, vectors: written.append(shard))
    embed_texts(embedder, texts, store, range(11))
    assert sorted(written) == list(range(11))
    assert written.index(0) <= 4
    # Where most texts are known: what counts is how far the reading is, not how much is new.
    written.clear()
    keys = [text_key(text) for text in texts if text[0] not in 'rj']
    vectors = encode(embedder, ['dog']).repeat(len(keys), 0)
    EmbeddingCache(tmp_path / 'cache', 't').add(keys, vectors)
    cache = EmbeddingCache(tmp_path / 'cache', 't')
    embed_texts(embedder, texts, store, range(11), cache=cache)
    assert sorted(written) == list(range(11)) and written.index(0) <= 4


def test_cut_image_is_named(tiny, own_folder, embedder, tmp_path):
    path = own_folder / 'image_003.jpg'
    path.write_bytes(path.read_bytes()[:300])
    pool = tiny.TinyData(own_folder).pool
    store = ShardStore(tmp_path / 'shards', 'images', len(pool), 16, 'd')
    with pytest.raises(ValueError, match='image_003.jpg'):
        embed_images(embedder, pool, store, range(len(store)), 0)


def test_shards_are_checked_before_use(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    store = ShardStore(tmp_path, 'x', 25, 10, 'digest')
    assert len(store) == 3 and store.items(2) == range(20, 25)
    store.write(0, vectors)
    store.write(1, vectors)
    np.testing.assert_array_equal(store.read(0), vectors)
    assert store.missing(range(3)) == [2]
    assert not list(tmp_path.glob('*.tmp'))

    whole = store.path(0).read_bytes()
    for content in (b'', whole[:50], whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        store.path(0).write_bytes(content)
        assert store.missing(range(3)) == [0, 2]
    # Another shard's content, too few items, or another run's.
    store.path(0).write_bytes(store.path(1).read_bytes())
    assert store.read(0) is None
    store.write(0, vectors[:9])
    assert store.read(0) is None
    store.write(0, vectors)
    assert ShardStore(tmp_path, 'x', 25, 10, 'other').read(0) is None


def test_ordered_map_keeps_order_reads_ahead_little_and_passes_errors():
    read = []
    before = torch.get_num_threads()
    torch.set_num_threads(3)

    def items():
        for i in range(20):
            read.append(i)
            yield i

    results = ordered_map(lambda i: i * i, items(), 'cpu')
    assert next(results) == 0
    assert len(read) <= 5
    assert list(results) == [i * i for i in range(1, 20)]
    with pytest.raises(ZeroDivisionError):
        list(ordered_map(lambda i: 1 // i, [1, 0, 1], 'cpu'))
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


def test_mining_leaves_random_states_and_settings_alone():
    import random

    def state():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()

    def seed():
        torch.manual_seed(1)
        np.random.seed(1)
        random.seed(1)

    seed()
    expected = state()
    seed()
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('medium')
    with same_every_time('cpu'):
        assert torch.get_float32_matmul_precision() == 'highest'
        state()
    assert torch.get_float32_matmul_precision() == 'medium'
    torch.set_float32_matmul_precision(precision)
    assert state() == expected
