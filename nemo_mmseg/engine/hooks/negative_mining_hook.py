"""Make what the transforms of a training need from disk, before it starts."""

from __future__ import annotations

import math
import os

from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from mmseg.registry import HOOKS

from nemo_mmseg.mining.requirements import make, requirements_of


@HOOKS.register_module()
class NegativeMiningHook(Hook):
    """Mine missing banks and make missing tile stores before training, and check those there are.

    Every transform of the training data set that needs files says so (``requirements``), also
    inside wrappers and other transforms. All ranks embed, rank 0 writes, the others watch for the
    file. Testing and validation alone never mine: they read no mosaics. Schedules of mosaics are
    checked for the epochs of the training.

    Args:
        batch_size: Images, or expressions, per batch of the miner. Defaults to 64.
        num_workers: Processes that decode images. Defaults to 2.
        device: Where to compute; None for the process's GPU if there is one.
        timeout: Seconds to wait for other ranks while nothing changes. Defaults to 1800.
        cache: Whether vectors are kept for other runs; True, a folder or False, see
            :func:`nemo_mmseg.mining.mine_bank`. Defaults to True.

    Raises:
        TileStoreError: In ``before_run``: a tile store is damaged, or was made of other images or
            with other settings.
        BankError: In ``before_run``: a bank is damaged, belongs to other data, was made with other
            settings, or its band is empty for every expression.
        ValueError: In ``before_run``: the training is over before a mosaic's ramp, or before its
            ``start_epoch``.
    """

    # First of all: other hooks may look at what a run needs.
    priority = 'HIGHEST'

    def __init__(
        self,
        batch_size: int = 64,
        num_workers: int = 2,
        device: str | None = None,
        timeout: float = 1800,
        cache: bool | str = True,
    ) -> None:
        self.options = dict(
            batch_size=batch_size,
            num_workers=num_workers,
            device=device,
            timeout=timeout,
            cache=cache,
        )

    def before_run(self, runner: Runner) -> None:
        """Make or check the files of a training run."""
        # The attribute, not the property: that one would build the training loop of a test run.
        loop = getattr(runner, '_train_loop', None)
        if not isinstance(loop, BaseLoop):
            return
        made = False
        for requirement in requirements_of(loop.dataloader.dataset, epochs_of(loop)):
            made |= not os.path.isfile(requirement.spec.path)
            make(requirement, **self.options)
        if made:
            _restart(loop)


def epochs_of(loop: BaseLoop) -> int | None:
    """Count the epochs that a training loop makes, begun ones included.

    Args:
        loop: An epoch or iteration loop.

    Returns:
        Their number, None where the loop is of another kind.
    """
    if not isinstance(loop, IterBasedTrainLoop):
        return getattr(loop, 'max_epochs', None)
    loader, iterations = loop.dataloader, loop.max_iters
    if isinstance(loader.sampler, InfiniteSampler):  # goes through the data with all ranks at once
        samples = iterations * loader.batch_size * loader.sampler.world_size
        return math.ceil(samples / loader.sampler.size)
    return math.ceil(iterations / len(loader))


def _restart(loop: BaseLoop) -> None:
    """Start the workers anew that looked for the bank before there was one.

    MMEngine 0.10.7 lets an iteration loop fetch its first batches while it is built; OneDL does
    not.
    """
    iterator = getattr(loop, 'dataloader_iterator', None)
    if getattr(iterator, '_iterator', None) is None:
        return
    sampler = loop.dataloader.sampler
    if hasattr(sampler, '_indices_of_rank'):  # an endless sampler has been drawn from
        sampler.indices = sampler._indices_of_rank()
    loop.dataloader._iterator = None  # that of persistent workers
    loop.dataloader_iterator = type(iterator)(loop.dataloader)
