"""Base of networks that are used as they were published, for comparison."""

from __future__ import annotations

from mmengine.registry import MODEL_WRAPPERS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from .base import BaseReferringSegmentor


class TrainingFreeSegmentor(BaseReferringSegmentor):
    """Base of segmentors that hold a frozen network and nothing that learns.

    ``tools/test.py CONFIG`` evaluates them without a checkpoint. The arguments are those of
    :class:`BaseReferringSegmentor`.
    """

    training_free = True

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Refuse a training.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            f'{type(self).__name__} is evaluated as it is, and has nothing to train'
        )

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """MMSegmentation's interface, which nothing here uses; see ``output``."""
        raise NotImplementedError(f'{type(self).__name__} has no features to extract; use output')


@MODEL_WRAPPERS.register_module()
class Undistributed:
    """Wrapper for ``model_wrapper_cfg`` that leaves a network as it is.

    Processes of a distributed test share the images all the same. PyTorch's wrapper refuses a
    network without parameters.

    Args:
        module: The network, which is what the call returns.
    """

    def __new__(cls, module: nn.Module) -> nn.Module:
        """Return the network."""
        return module
