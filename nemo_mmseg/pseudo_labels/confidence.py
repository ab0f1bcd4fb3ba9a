"""Labels of the pixels whose side a response map leaves no doubt about.

They train the affinity network: pixels that are surely on the object or surely not; the others are
unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .dense_crf import CRFSettings, make_crf

UNKNOWN = 255


@dataclass(frozen=True)
class ConfidenceSettings:
    """How a response map becomes labels; the defaults are those of TRIS.

    Args:
        foreground: Above this a response is surely on the object.
        background: Up to this it is surely not on it.
        crf: Settings of the dense CRF that refines both.
        library: ``'own'`` or ``'pydensecrf'``, see :func:`~.dense_crf.make_crf`.

    Raises:
        ValueError: The thresholds are not in the order 0, background, foreground, 1.
    """

    foreground: float = 0.3
    background: float = 0.1
    crf: CRFSettings = field(default_factory=CRFSettings)
    library: str = 'own'

    def __post_init__(self) -> None:
        if not 0 <= self.background <= self.foreground < 1:
            raise ValueError(
                f'the thresholds must be 0 <= background <= foreground < 1, not {self.background} '
                f'and {self.foreground}'
            )


def confidence_labels(
    image: np.ndarray, responses: np.ndarray, settings: ConfidenceSettings
) -> np.ndarray:
    """Label the pixels of an image for each of its objects.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        responses: ``(N, H, W)`` float32, the response map of each object; 1 is the maximum.
        settings: Thresholds and CRF.

    Returns:
        ``(N, H, W)`` uint8: 1 object, 0 background, 255 unknown.
    """
    masks = np.stack(
        [
            responses > np.float32(settings.foreground),
            responses > np.float32(settings.background),
        ]
    )
    crf = make_crf(image, settings.crf, settings.library)
    refined = crf.refine(masks.reshape(-1, *masks.shape[2:])).reshape(masks.shape)
    sure, possible = refined.astype(bool)
    return np.where(sure, 1, np.where(possible, UNKNOWN, 0)).astype(np.uint8)
