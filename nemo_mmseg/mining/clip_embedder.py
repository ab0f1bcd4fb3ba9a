"""An open_clip model that turns images and sentences into unit vectors."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

# Shorter contexts are cut exactly, longer ones at the next multiple of eight: few texts are long,
# and each length has a last batch that is not full.
_EXACT_UP_TO = 16
# A batch's number of rows is a multiple of this: products work off the rows that are left over from
# their own steps in another way, and so with other last bits.
_ROWS = 16


class _TextTower(nn.Module):
    """``encode_text`` of an open_clip model as a module, whose tensors a call can swap."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, ids: Tensor) -> Tensor:
        return self.clip.encode_text(ids)


class ClipEmbedder:
    """Turns batches of images and of sentences into unit vectors of one open_clip model.

    open_clip runs its text tower over the whole context (77 positions) however short the sentences
    are. Where the tower is causal and reads the end-of-text token, positions after that token
    change nothing, and a batch holds texts of one length and is cut there.

    The last bits of a vector depend on the shape of its batch, but not on the others in it or on
    its place. So every batch has the same number of rows, short ones are filled up, and a vector is
    a function of its image, or text, alone: it does not matter what else a run embeds.

    Args:
        model: open_clip's name of the architecture.
        pretrained: Tag or file of the weights.
        device: Where to compute. On a GPU under float16 autocast.
        cut_context: Whether to cut the context where that is exact. Defaults to True.
        batch_size: Images, or texts, a batch. Defaults to 64.
    """

    def __init__(
        self,
        model: str,
        pretrained: str | None,
        device: str = 'cpu',
        cut_context: bool = True,
        batch_size: int = 64,
    ) -> None:
        from nemo_mmseg.utils.clip import clip_preprocess, load_clip, load_clip_tokenizer

        self.device = device
        self.batch_size = batch_size
        self.clip = load_clip(model, pretrained, device)
        self.tokenizer = load_clip_tokenizer(model)
        self.preprocess = clip_preprocess(model, self.clip)
        self._text_of_thread = threading.local()
        self._cuttable = self._find_cuttable() if cut_context else None

    def _find_cuttable(self) -> str | None:
        """Prefix of the tensors that a cut has to shorten, None where a cut is not exact."""
        for prefix, tower in (
            ('clip.', self.clip),
            ('clip.text.', getattr(self.clip, 'text', None)),
        ):
            pool = getattr(tower, 'text_pool_type', getattr(tower, 'pool_type', None))
            causal = getattr(tower, 'attn_mask', None) is not None
            position = getattr(tower, 'positional_embedding', None)
            plain = position is not None and getattr(tower, 'cls_emb', None) is None
            if causal and plain and pool in ('argmax', 'eos'):
                return prefix
        return None

    def _text_tower(self) -> _TextTower:
        """This thread's text tower: swapping tensors is not safe when threads share modules."""
        if not hasattr(self._text_of_thread, 'tower'):
            tensors = [*self.clip.parameters(), *self.clip.buffers()]
            # The copy has its own modules and the same tensors.
            clip = copy.deepcopy(self.clip, memo={id(t): t for t in tensors})
            self._text_of_thread.tower = _TextTower(clip)
        return self._text_of_thread.tower

    def _run(self, call: Callable, batch: Tensor) -> np.ndarray:
        """Unit vectors (n, D) of n <= batch_size inputs, computed as a full batch."""
        count = len(batch)
        whole = -(-self.batch_size // _ROWS) * _ROWS
        batch = batch.to(self.device, non_blocking=True)
        if count < whole:
            batch = torch.cat([batch, batch[-1:].expand(whole - count, *batch.shape[1:])])
        kind = torch.device(self.device).type
        with (
            torch.inference_mode(),
            torch.autocast(kind, dtype=torch.float16, enabled=kind == 'cuda'),
        ):
            vectors = call(batch)[:count]
        # Normalised outside of autocast: a float16 norm would cost three digits.
        return nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()

    def images(self, batch: Tensor) -> np.ndarray:
        """Unit vectors (n, D) float32 of preprocessed images (n, 3, H, W), n <= batch_size."""
        return self._run(self.clip.encode_image, batch)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, list[int]]:
        """Token ids (n, T) int64 of texts, and how many of the T each needs."""
        ids = self.tokenizer(list(texts))
        if self._cuttable is None:
            return ids, [ids.shape[1]] * len(ids)
        lengths = (ids == self.tokenizer.eot_token_id).int().argmax(dim=-1) + 1
        longer = (-(-lengths // 8) * 8).clamp(max=ids.shape[1])
        return ids, torch.where(lengths > _EXACT_UP_TO, longer, lengths).tolist()

    def encode(self, ids: Tensor) -> np.ndarray:
        """Unit vectors (n, D) float32 of token ids (n, length) of one length, n <= batch_size."""
        tower = self._text_tower()
        length = ids.shape[1]
        if self._cuttable is None:
            return self._run(tower, ids)
        named = dict(tower.named_parameters()) | dict(tower.named_buffers())
        position = self._cuttable + 'positional_embedding'
        mask = self._cuttable + 'attn_mask'
        shorter = {position: named[position][:length], mask: named[mask][:length, :length]}
        return self._run(lambda batch: torch.func.functional_call(tower, shorter, (batch,)), ids)

    def tower(self) -> dict[str, str]:
        """What a vector depends on beside the weights and the input."""
        return dict(
            # Functions among the steps (open_clip 2) have an address, another one in each process.
            preprocess=re.sub(' at 0x[0-9a-f]+', '', repr(self.preprocess)),
            context=f'cut to {_EXACT_UP_TO} or 8n' if self._cuttable else 'whole',
            batch_size=self.batch_size,
            device=torch.device(self.device).type,
        )
