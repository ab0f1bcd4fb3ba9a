"""Compile the parts of a network that are worth it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import nn

USUAL_PARTS = ('backbone', 'neck', 'decode_head')


@HOOKS.register_module()
class CompileHook(Hook):
    """Train with parts of the network compiled by ``torch.compile``, each for itself.

    MMEngine's own setting (``compile = True`` in a config) compiles a whole training step, with the
    tokenizer and the bookkeeping of the data samples in it. This hook compiles modules in place:
    names in the state dict, checkpoints and copies stay what they were. What is compiled is a call
    of the module, which is how the segmentor calls backbone, neck and head.

    While the network is in evaluation mode it runs as it is written: the number of expressions
    changes from image to image there, and each number would be compiled anew.

    Args:
        modules: Names of parts, dotted ones for parts of parts (``'text_encoder.bert'``). None
            takes those of backbone, neck and head that there are.
        backend: As in ``torch.compile``.
        mode: As in ``torch.compile``, for instance ``'max-autotune'``.
        dynamic: As in ``torch.compile``. The default, False, compiles for the sizes of the training
            batches, which are all alike. For sizes that vary tracing a Swin takes very long.

    Raises:
        ValueError: ``modules`` is one string. In ``before_run``: the network has no part of such a
            name.
    """

    def __init__(
        self,
        modules: Sequence[str] | None = None,
        backend: str | Callable = 'inductor',
        mode: str | None = None,
        dynamic: bool | None = False,
    ) -> None:
        if isinstance(modules, str):
            raise ValueError(f'CompileHook: modules={modules!r} must be a list of names')
        self.modules = modules
        self.options = dict(backend=backend, mode=mode, dynamic=dynamic)

    def before_run(self, runner: Runner) -> None:
        """Mark the parts; they are compiled when they are called first."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        parts: dict[str, nn.Module] = dict(model.named_modules())
        names = self.modules
        if names is None:
            names = [name for name in USUAL_PARTS if name in parts]
        missing = [name for name in names if not name or name not in parts]
        if missing or not names:
            raise ValueError(
                f'CompileHook: {type(model).__name__} has no part {missing or USUAL_PARTS}; '
                f'it has {[name for name, _ in model.named_children()]}'
            )
        for name in names:
            parts[name].compile(**self.options)
            _compile_only_training(parts[name], model)


def _compile_only_training(part: nn.Module, model: nn.Module) -> None:
    """Call what ``part.compile`` made only while the whole network is in training mode.

    The part's own mode would not do: BERT may stay in evaluation mode while LAVT trains. PyTorch's
    switch for evaluation, ``torch.compiler.set_stance``, is one for all networks of the process,
    and stays where it is when a validation raises.
    """
    compiled, plain = part._compiled_call_impl, part._call_impl

    def call(*args, **kwargs):
        return (compiled if model.training else plain)(*args, **kwargs)

    part._compiled_call_impl = call  # as PyTorch's own, left out of copies and pickles
