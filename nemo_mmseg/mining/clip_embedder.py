"""An open_clip model that turns images and sentences into unit vectors."""

from __future__ import annotations

import copy
import hashlib
import json
import platform
import re
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nemo_mmseg.utils.clip import clip_preprocess, load_clip, load_clip_tokenizer
from nemo_mmseg.utils.images import DECODING

# Libraries that a vector's last bits depend on.
LIBRARIES = ('torch', 'open_clip_torch', 'numpy', 'pillow')
# Shorter contexts are cut exactly, longer ones at the next multiple of eight. Few texts are long,
# and each length has a last batch that is not full.
_EXACT_UP_TO = 16
# A batch's number of rows is a multiple of this. Products work off the rows that are left over from
# their own steps in another way, and so with other last bits.
_ROW_STEP = 16


class _TextEncoder(nn.Module):
    """``encode_text`` of an open_clip model as a module, whose tensors a call can swap."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, ids: Tensor) -> Tensor:
        return self.clip.encode_text(ids)


class ClipEmbedder:
    """Turn batches of images and of sentences into unit vectors of one open_clip model.

    open_clip runs its text encoder over the whole context (77 positions) however short the
    sentences are. Where the encoder is causal and reads the end-of-text token, positions after that
    token change nothing. Then a batch holds texts of one length and is cut there.

    The last bits of a vector depend on the shape of its batch, but not on the others in it or on
    its place. So every batch has the same number of rows, and short ones are filled up. Then a
    vector is a function of its image, or text, alone: it does not matter what else a run embeds.

    Args:
        model: open_clip's name of the architecture.
        pretrained: Tag or file of the weights.
        device: Where to compute. On a GPU under float16 autocast. Defaults to the CPU.
        batch_size: Images, or texts, per batch. Defaults to 64.
    """

    def __init__(
        self, model: str, pretrained: str | None, device: str = 'cpu', batch_size: int = 64
    ) -> None:
        self.model = model
        self.device = device
        self.batch_size = batch_size
        self.clip = load_clip(model, pretrained, device)
        self.tokenizer = load_clip_tokenizer(model)
        self.preprocess = clip_preprocess(model, self.clip)
        self._of_thread = threading.local()
        self._cuttable = self._find_cuttable()

    def _find_cuttable(self) -> str | None:
        """Prefix of the tensors that a cut has to shorten, None where a cut is not exact."""
        for prefix, encoder in (
            ('clip.', self.clip),
            ('clip.text.', getattr(self.clip, 'text', None)),
        ):
            pool = getattr(encoder, 'text_pool_type', getattr(encoder, 'pool_type', None))
            causal = getattr(encoder, 'attn_mask', None) is not None
            position = getattr(encoder, 'positional_embedding', None)
            plain = position is not None and getattr(encoder, 'cls_emb', None) is None
            if causal and plain and pool in ('argmax', 'eos'):
                return prefix
        return None

    def _text_encoder(self) -> _TextEncoder:
        """This thread's text encoder: swapping tensors is not safe when threads share modules."""
        if not hasattr(self._of_thread, 'encoder'):
            tensors = [*self.clip.parameters(), *self.clip.buffers()]
            # The copy has its own modules and the same tensors.
            clip = copy.deepcopy(self.clip, memo={id(t): t for t in tensors})
            self._of_thread.encoder = _TextEncoder(clip)
        return self._of_thread.encoder

    def _run(self, call: Callable[[Tensor], Tensor], batch: Tensor) -> np.ndarray:
        """Unit vectors ``(n, D)`` of n <= batch_size inputs, computed as a full batch."""
        count = len(batch)
        whole = -(-self.batch_size // _ROW_STEP) * _ROW_STEP
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
        """Embed images.

        Args:
            batch: ``(n, 3, H, W)``, preprocessed, n <= batch_size.

        Returns:
            Unit vectors ``(n, D)`` float32.
        """
        return self._run(self.clip.encode_image, batch)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, list[int]]:
        """Return token ids ``(n, T)`` int64 of texts, and how many of the T each needs."""
        ids = self.tokenizer(list(texts))
        if self._cuttable is None:
            return ids, [ids.shape[1]] * len(ids)
        lengths = (ids == self.tokenizer.eot_token_id).int().argmax(dim=-1) + 1
        longer = (-(-lengths // 8) * 8).clamp(max=ids.shape[1])
        return ids, torch.where(lengths > _EXACT_UP_TO, longer, lengths).tolist()

    def encode(self, ids: Tensor) -> np.ndarray:
        """Embed texts of one length.

        Args:
            ids: Token ids ``(n, length)``, n <= batch_size.

        Returns:
            Unit vectors ``(n, D)`` float32.
        """
        encoder, length = self._text_encoder(), ids.shape[1]
        if self._cuttable is None:
            return self._run(encoder, ids)
        named = dict(encoder.named_parameters()) | dict(encoder.named_buffers())
        position = self._cuttable + 'positional_embedding'
        mask = self._cuttable + 'attn_mask'
        shorter = {position: named[position][:length], mask: named[mask][:length, :length]}
        return self._run(lambda batch: torch.func.functional_call(encoder, shorter, (batch,)), ids)

    def digest(self, weights: str) -> str:
        """Return a digest of everything but the input that a vector depends on.

        Machines of other kinds compute other last bits. Where they share a folder, each has its
        own vectors.

        Args:
            weights: Digest of the weights.
        """
        on_gpu = torch.device(self.device).type == 'cuda'
        conditions = dict(
            model=self.model,
            weights=weights,
            # Functions among the steps (open_clip 2) have an address, another one in each process.
            preprocess=re.sub(' at 0x[0-9a-f]+', '', repr(self.preprocess)),
            context=f'cut to {_EXACT_UP_TO} or 8n' if self._cuttable else 'whole',
            decoding=DECODING,
            batch_size=self.batch_size,
            machine=torch.cuda.get_device_name(self.device) if on_gpu else _cpu(),
            versions={name: version(name) for name in (*LIBRARIES, 'torchvision')},
        )
        return hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()


def _cpu() -> str:
    """Model of the CPU, and the instructions of it that torch uses."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    models = [line.split(':')[1].strip() for line in lines if line.startswith('model name')]
    model = models[0] if models else platform.processor()
    return f'{model} {torch.backends.cpu.get_cpu_capability()}'
