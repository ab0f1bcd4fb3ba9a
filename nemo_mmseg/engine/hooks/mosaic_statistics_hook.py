"""Report what mosaics, and their baselines, did to the training samples."""

from __future__ import annotations

from collections import Counter

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.registry import HOOKS


@HOOKS.register_module()
class MosaicStatisticsHook(Hook):
    """Count mosaics, and mixed samples, in the batches that a network is trained on.

    Workers report through the samples: the counts are read from the metainfo ``mosaic`` and
    ``mixed`` of each data sample. The log gets shares since the start of the run (of this process):

    - of the samples ``mosaic/mined``, ``mosaic/random`` and ``mosaic/mixed`` (by the baselines
      CutMix, MixGen and CopyPaste);
    - of the mined ones ``mosaic/num_filled`` (random images fill cells, as the band has too few)
      and ``mosaic/truncated`` (the bank stores too few images to fill the band).

    Attributes:
        counts: Number of ``samples``, ``mined``, ``random``, ``mixed``, ``num_filled`` and
            ``truncated``.
    """

    priority = 'ABOVE_NORMAL'  # before the logger reads the values

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Count one batch."""
        for sample in (data_batch or {}).get('data_samples', []):
            self.counts['samples'] += 1
            self.counts['mixed'] += 'mixed' in sample.metainfo
            mosaic = sample.metainfo.get('mosaic')
            if mosaic is not None:
                self.counts[mosaic['kind']] += 1
                self.counts['num_filled'] += mosaic['num_filled'] > 0
                self.counts['truncated'] += mosaic['truncated']
        for name, share in self.shares().items():
            runner.message_hub.update_scalar(f'train/mosaic/{name}', share)

    def after_train(self, runner: Runner) -> None:
        """Print the totals."""
        print_log(
            f'Mosaics and mixes in {self.counts["samples"]} training samples: {self.shares()}',
            'current',
        )

    def shares(self) -> dict[str, float]:
        """Return the counts as shares: kinds of all samples, the others of the mined mosaics."""
        samples, mined = self.counts['samples'], self.counts['mined']
        of_mined = {
            key: self.counts[key] / mined if mined else 0.0 for key in ('num_filled', 'truncated')
        }
        of_all = {key: self.counts[key] / max(samples, 1) for key in ('mined', 'random', 'mixed')}
        return {key: round(value, 4) for key, value in {**of_all, **of_mined}.items()}
