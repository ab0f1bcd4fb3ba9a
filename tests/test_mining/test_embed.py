"""Embedding what is not known yet, and putting it where the next run finds it."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nemo_mmseg.mining import embed
from nemo_mmseg.mining.clip_embedder import ClipEmbedder
from nemo_mmseg.mining.embed import blocks_of, distinct_texts, embed_images, embed_texts
from nemo_mmseg.mining.vectors import VectorStore, image_key, text_keys


@pytest.fixture(scope='module')
def embedder(tiny, shared_folder):
    tiny.register_clip(shared_folder)
    return ClipEmbedder(tiny.MODEL, shared_folder + '/weights.pt', batch_size=5)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(embed, 'BLOCK_SIZE', 16)


def test_distinct_texts():
    texts = ['big dog', 'a', 'big dog', 'dog', 'cat', 'a']
    distinct, index = distinct_texts(texts)
    assert distinct == ['a', 'cat', 'dog', 'big dog']
    assert [distinct[i] for i in index] == texts


def test_texts_of_all_lengths_get_their_vectors(tiny, shared_folder, embedder, tmp_path):
    texts, _ = distinct_texts(tiny.TinyData(shared_folder).expressions()[1])
    store, done = VectorStore('encoder', tmp_path), Counter()
    blocks = blocks_of(len(texts))
    embed_texts(embedder, texts, blocks[1::2], store, lambda count: done.update(first=count))
    embed_texts(embedder, texts, blocks, store, lambda count: done.update(second=count))
    assert done == dict(first=sum(map(len, blocks[1::2])), second=len(texts))
    vectors = store.read(text_keys(texts))
    for text, vector in zip(texts, vectors):
        ids, (length,) = embedder.tokenize([text])
        np.testing.assert_array_equal(embedder.encode(ids[:, :length])[0], vector)


@pytest.mark.parametrize('workers', [0, 2])
def test_unreadable_image_is_named_and_the_others_are_kept(
    tiny, own_folder, embedder, tmp_path, workers
):
    whole = (own_folder / 'image_021.jpg').read_bytes()
    for content in (b'not an image', whole[:300]):
        (own_folder / 'image_021.jpg').write_bytes(content)
        pool = tiny.TinyData(own_folder).pool
        store = VectorStore('encoder', tmp_path / 'work')
        with pytest.raises(ValueError, match='cannot read the image .*image_021.jpg'):
            embed_images(embedder, pool, blocks_of(len(pool)), store, workers)
        store.refresh()
        assert len(store) >= 5


def test_a_file_that_changes_meanwhile_is_known_as_what_was_embedded(
    tiny, shared_folder, embedder, tmp_path
):
    real = tiny.TinyData(shared_folder).pool

    class Changing:
        """Every file is another one when it is looked at again."""

        seen = Counter()

        def __len__(self):
            return 6

        def path(self, row):
            self.seen[row] += 1
            return real.path(row + 6 * (self.seen[row] - 1))

    store = VectorStore('encoder', tmp_path)
    keys = embed_images(embedder, Changing(), blocks_of(6), store, 0)
    content = [image_key(Path(real.path(row)).read_bytes()) for row in range(12)]
    np.testing.assert_array_equal(keys, content[6:])
    store.refresh()
    assert sorted(store.find(np.stack(content))) == list(range(6, 12))
