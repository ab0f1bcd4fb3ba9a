"""How a config prepares a picture, as plain values that the runtime follows."""

from __future__ import annotations

from mmcv.transforms import Compose, Resize
from torch import nn

from nemo_mmseg.datasets.transforms.formatting import PackReferringInputs
from nemo_mmseg.datasets.transforms.geometry import Letterbox

INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'area')


def picture_rules(pipeline: Compose, preprocessor: nn.Module) -> dict:
    """Describe the way from a picture to the network's input.

    Args:
        pipeline: Test pipeline without its loading, of ``build_pipeline``.
        preprocessor: Data preprocessor of the network.

    Returns:
        ``size`` (height, width), ``resize`` (``'letterbox'`` or ``'stretch'``), ``interpolation``,
        ``backend`` (``'cv2'`` or ``'pillow'``), and ``pad_rgb`` for a letterbox. JSON values.

    Raises:
        ValueError: The pipeline has another transform, keeps the aspect without padding, or the
            preprocessor pads.
    """
    steps = [step for step in pipeline.transforms if not isinstance(step, PackReferringInputs)]
    names = [type(step).__name__ for step in steps]
    if len(steps) != 1 or not isinstance(steps[0], (Letterbox, Resize)):
        raise ValueError(
            f'the test pipeline has {names or "nothing"} between loading and packing; what can be '
            'exported is one Letterbox, or one Resize with keep_ratio=False'
        )
    if getattr(preprocessor, 'test_cfg', None):
        raise ValueError('data_preprocessor.test_cfg pads the input, which cannot be exported')
    step = steps[0]
    if step.interpolation not in INTERPOLATIONS:
        allowed = ', '.join(INTERPOLATIONS)
        raise ValueError(f'interpolation={step.interpolation!r} cannot be exported, but {allowed}')
    if isinstance(step, Letterbox):
        rules = dict(resize='letterbox', size=list(step.size), backend='cv2')
        rules['pad_rgb'] = list(step.pad_val[::-1])
    else:
        if step.keep_ratio or step.scale is None:
            raise ValueError('Resize can be exported with a scale and keep_ratio=False')
        width, height = step.scale
        rules = dict(resize='stretch', size=[height, width], backend=step.backend)
    return dict(rules, interpolation=step.interpolation)
