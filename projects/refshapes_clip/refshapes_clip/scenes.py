"""Scenes of RefShapes with their sentences, and batches drawn from them."""

from __future__ import annotations

import os

import cv2
import numpy as np
import torch

from nemo_mmseg.utils.atomic_write import atomic_write
from refshapes_clip import words as vocab
from refshapes_clip.pairs import make_pairs

SHARD = 500


def make_shard(job: tuple[int, int], folder: str) -> str:
    """Make a file with SHARD scenes and their sentences, if it is not there."""
    seed, number = job
    path = os.path.join(folder, f'{seed}_{number:03d}.npz')
    if not os.path.exists(path):
        cv2.setNumThreads(0)
        made = [make_pairs(seed, number * SHARD + i) for i in range(SHARD)]
        with atomic_write(path) as part, part.open('wb') as file:
            np.savez(
                file,
                images=np.stack([m.image for m in made]),
                boxes=np.concatenate([m.boxes for m in made]),
                kinds=np.concatenate([m.kinds for m in made]),
                counts=np.array([len(m.sentences) for m in made]),
                sentences=np.array([s for m in made for s in m.sentences]),
            )
    return path


class Scenes:
    """All scenes of some shards in memory, with tokenized sentences."""

    def __init__(self, paths: list[str], tokenizer) -> None:
        parts = []
        for path in paths:
            with np.load(path) as data:
                parts.append({k: data[k] for k in data.files})
        self.images = np.concatenate([p['images'] for p in parts])
        self.boxes = np.concatenate([p['boxes'] for p in parts])
        self.kinds = np.concatenate([p['kinds'] for p in parts])
        counts = np.concatenate([p['counts'] for p in parts])
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        sentences = np.concatenate([p['sentences'] for p in parts])
        self.tokens = tokenizer([str(s) for s in sentences]).numpy().astype(np.int16)

    def __len__(self) -> int:
        return len(self.images)


class Batches:
    """Draws batches: images, sentences, and copies of sentences with one word changed."""

    def __init__(self, scenes: Scenes, tokenizer, seed: int, nouns: float = 0.0) -> None:
        self.scenes = scenes
        self.nouns = nouns
        self.rng = np.random.default_rng(seed)
        ids = {w: tokenizer.encode(w)[0] for w in vocab.all_words()}
        same = [('plain', 'solid'), ('outline', 'outlines')]
        same += [n for n in vocab.CATEGORIES.values()] + list(vocab.COLOUR_WORDS.values())
        same += [
            tuple(vocab.PLURALS.get(n, n + 's') for n in ns) for ns in vocab.CATEGORIES.values()
        ]
        self.swaps: dict[int, np.ndarray] = {}
        for group in vocab.CHANGEABLE:
            for word in group:
                alike = {w for s in same if word in s for w in s} | {word}
                self.swaps[ids[word]] = np.array([ids[w] for w in group if w not in alike])
        self.is_noun = np.zeros(tokenizer.vocab_size, bool)
        self.is_noun[[ids[word] for word in (*vocab.NOUNS, *vocab.NOUN_PLURALS)]] = True
        self.swappable = np.zeros(tokenizer.vocab_size, bool)
        self.swappable[list(self.swaps)] = True

    def changed(self, tokens: np.ndarray) -> np.ndarray:
        """Return a copy of a sentence's tokens with one word changed to another of its group."""
        places = np.flatnonzero(self.swappable[tokens])
        if self.rng.random() < self.nouns and self.is_noun[tokens].any():
            places = np.flatnonzero(self.is_noun[tokens])
        changed = tokens.copy()
        place = places[int(self.rng.integers(len(places)))]
        choices = self.swaps[int(tokens[place])]
        changed[place] = choices[int(self.rng.integers(len(choices)))]
        return changed

    def _noun_alone(self, tokens: np.ndarray) -> np.ndarray:
        """The sentence cut down to its first noun."""
        place = int(np.flatnonzero(self.is_noun[tokens])[0])
        short = np.zeros_like(tokens)
        short[:3] = tokens[0], tokens[place], tokens.max()  # start, noun, end
        return short

    def draw(self, size: int, per_image: int, window: int | None, longer: bool):
        """A batch.

        Args:
            size: Images.
            per_image: Sentences of each image, and as many changed copies.
            window: Side of the windows cut from the scenes in pixels, None for whole scenes.
            longer: Also sentences with locations, sizes and relations (not for windows).

        Returns:
            images uint8 (B, 3, s, s), tokens (2 S, L) of the true sentences followed by as many
            changed ones, owner (S,) image of each true sentence.
        """
        rng, data = self.rng, self.scenes
        images, tokens, owner = [], [], []
        while len(images) < size:
            i = int(rng.integers(len(data)))
            rows = np.arange(data.starts[i], data.starts[i + 1])
            image = data.images[i]
            if not longer or window:
                rows = rows[data.kinds[rows] == 0]
            if window:
                boxes = data.boxes[rows]
                if not len(boxes):
                    continue
                # A window around a random object, so that none is empty.
                box = boxes[int(rng.integers(len(boxes)))]
                room = image.shape[0] - window
                x = int(np.clip(rng.uniform(*sorted((box[2] - window, box[0] + 1))), 0, room))
                y = int(np.clip(rng.uniform(*sorted((box[3] - window, box[1] + 1))), 0, room))
                seen = (boxes[:, 0] >= x - 2) & (boxes[:, 2] <= x + window + 2)
                seen &= (boxes[:, 1] >= y - 2) & (boxes[:, 3] <= y + window + 2)
                rows, image = rows[seen], image[y : y + window, x : x + window]
            if not len(rows):
                continue
            # Always as many (again if need be): oneDNN keeps a plan for each shape it meets.
            rows = rng.choice(rows, per_image, replace=len(rows) < per_image)
            if (window or not longer) and rng.random() < 0.5:
                image = image[:, ::-1]
            owner += [len(images)] * len(rows)
            images.append(image)
            for r in rows:
                alone = rng.random() < 0.3 * self.nouns and self.is_noun[data.tokens[r]].any()
                tokens.append(self._noun_alone(data.tokens[r]) if alone else data.tokens[r])
        tokens += [self.changed(t) for t in tokens]
        stacked = np.stack(tokens).astype(np.int64)
        longest = int((stacked > 0).any(0).sum())
        length = 14 if longest <= 14 else stacked.shape[1]
        images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        return images, torch.from_numpy(stacked[:, :length]), torch.tensor(owner)
