"""The metric of Ref-ZOM: expressions of zero, one or many objects."""

from __future__ import annotations

from collections.abc import Sequence

from mmseg.registry import METRICS

from .robust_iou import RejectingScores, RobustReferringIoU


class RefZOMScores(RejectingScores):
    """The table of :class:`RefZOMIoU`."""

    def ratios(self, thresholds: Sequence[float] | None = None) -> dict[str, tuple]:
        """Return what each measure divides, see :meth:`ExpressionScores.ratios`."""
        acc = self.no_target & self.predicted_no_target, self.no_target
        ratios = self.ratios_of_true(thresholds)
        return {'oIoU': ratios.pop('oIoU'), 'mIoU': ratios.pop('mIoU'), 'Acc': acc, **ratios}


@METRICS.register_module()
class RefZOMIoU(RobustReferringIoU):
    """Acc of zero-target expressions, and oIoU, mIoU and Pr@X of the others, in per cent.

    As published with Ref-ZOM (Hu et al., *Beyond One-to-One: Rethinking the Referring Image
    Segmentation*, ICCV 2023). ``Acc`` is the share of the zero-target expressions that are
    rejected: by the network's no-target score, or because their mask is empty. The other measures
    leave zero-target expressions out; so a mask of an object that is not there costs no IoU. Acc
    is nan without such expressions.

    Publications reject by different rules, and their numbers are not comparable:

    - DMMI, by an empty mask alone: ``no_target='area'``. One pixel is a failure.
    - PropVG, by a box score below 0.7. It then takes the IoU of the mask that the network drew,
      even where that score rejects an expression that has a target. Here a rejected mask is empty,
      so rejecting too much costs IoU.

    The arguments are those of :class:`RobustReferringIoU`.
    """

    table = RefZOMScores
