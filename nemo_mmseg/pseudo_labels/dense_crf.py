"""Masks drawn to the edges of an image by a dense conditional random field.

Krähenbühl and Koltun, *Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials*,
NeurIPS 2011, for two labels, with the settings that TRIS took over from IRN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .permutohedral import PermutohedralLattice


@dataclass(frozen=True)
class CRFSettings:
    """Settings of the field; the defaults are those of IRN and TRIS.

    Args:
        steps: Steps of the mean field.
        certainty: Probability of the given label at each pixel.
        smooth_xy: Standard deviation of the smoothness kernel, in pixels.
        smooth_weight: Its weight.
        colour_xy: Standard deviation of the appearance kernel, in pixels.
        colour_rgb: Its standard deviation in grey values, 0 to 255.
        colour_weight: Its weight.
    """

    steps: int = 10
    certainty: float = 0.7
    smooth_xy: float = 3
    smooth_weight: float = 3
    colour_xy: float = 50
    colour_rgb: float = 5
    colour_weight: float = 10


class DenseCRF:
    """Field over the pixels of one image, for any number of masks of it.

    The two lattices are made once. Masks are filtered together.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        settings: Defaults to those of TRIS.
    """

    def __init__(self, image: np.ndarray, settings: CRFSettings | None = None) -> None:
        settings = settings or CRFSettings()
        self.settings = settings
        self.shape = image.shape[:2]
        y, x = np.mgrid[: self.shape[0], : self.shape[1]]
        xy = np.stack([x, y], -1).reshape(-1, 2)
        colours = image.reshape(-1, 3) / settings.colour_rgb
        self._smooth = _normalised(xy / settings.smooth_xy)
        self._colour = _normalised(np.hstack([xy / settings.colour_xy, colours]))
        self._field_of_ones = self._field(np.ones((len(xy), 1), np.float32))

    def _field(self, values: np.ndarray) -> np.ndarray:
        weights = self.settings.smooth_weight, self.settings.colour_weight
        return weights[0] * self._smooth(values) + weights[1] * self._colour(values)

    def probabilities(self, masks: np.ndarray) -> np.ndarray:
        """Compute how probable label 1 is at each pixel.

        Args:
            masks: ``(N, H, W)``, 0 or 1: the given labels.

        Returns:
            ``(N, H, W)`` float32.
        """
        certainty = self.settings.certainty
        given = np.where(masks.reshape(len(masks), -1).T, 1, -1).astype(np.float32)
        given *= np.float32(np.log(certainty / (1 - certainty)))
        # Two labels: the second one's probability is what is left, so one value is filtered, and
        # the softmax is a sigmoid of the difference.
        probable = _sigmoid(given)
        for _ in range(self.settings.steps):
            probable = _sigmoid(given + 2 * self._field(probable) - self._field_of_ones)
        return probable.T.reshape(masks.shape)

    def refine(self, masks: np.ndarray) -> np.ndarray:
        """Return the more probable label of each pixel, 0 where both are equally probable.

        Args:
            masks: ``(N, H, W)``, 0 or 1.

        Returns:
            ``(N, H, W)`` uint8.
        """
        return (self.probabilities(masks) > 0.5).astype(np.uint8)


def _normalised(features: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the filter with the features' Gaussian, normalised on both sides."""
    lattice = PermutohedralLattice(features)
    norm = 1 / np.sqrt(lattice.filter(np.ones((len(features), 1), np.float32)))
    return lambda values: norm * lattice.filter(norm * values)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    with np.errstate(over='ignore'):  # the limit, 0, is right
        return 1 / (1 + np.exp(-logits))


class PyDenseCRF(DenseCRF):
    """The same field computed by pydensecrf, the library that TRIS uses.

    Equal labels, for comparison. It builds both lattices anew for every mask.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        settings: Defaults to those of TRIS.

    Raises:
        ImportError: The library is not installed.
    """

    def __init__(self, image: np.ndarray, settings: CRFSettings | None = None) -> None:
        try:
            from pydensecrf.densecrf import DenseCRF2D
        except ImportError as error:
            raise ImportError(
                'the CRF library pydensecrf is missing: pip install pydensecrf2 (it needs a C++ '
                "compiler), or use library='own', which gives the same labels"
            ) from error
        self.settings = settings or CRFSettings()
        self.shape = image.shape[:2]
        self._image = np.ascontiguousarray(image)
        self._field_of = DenseCRF2D

    def probabilities(self, masks: np.ndarray) -> np.ndarray:
        """Compute how probable label 1 is at each pixel, see :class:`DenseCRF`."""
        return np.stack([self._probability(mask) for mask in masks])

    def _probability(self, mask: np.ndarray) -> np.ndarray:
        settings, (height, width) = self.settings, self.shape
        certainty = np.where(mask.ravel(), settings.certainty, 1 - settings.certainty)
        energy = -np.log(np.stack([1 - certainty, certainty])).astype(np.float32)
        crf = self._field_of(width, height, 2)
        crf.setUnaryEnergy(np.ascontiguousarray(energy))
        crf.addPairwiseGaussian(sxy=settings.smooth_xy, compat=settings.smooth_weight)
        crf.addPairwiseBilateral(
            sxy=settings.colour_xy,
            srgb=settings.colour_rgb,
            rgbim=self._image,
            compat=settings.colour_weight,
        )
        return np.asarray(crf.inference(settings.steps), np.float32)[1].reshape(self.shape)


def make_crf(image: np.ndarray, settings: CRFSettings, library: str = 'own') -> DenseCRF:
    """Make the field of an image.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        settings: Of the field.
        library: ``'own'``, or ``'pydensecrf'`` (``pip install pydensecrf2``).

    Raises:
        ImportError: The library is not installed.
        ValueError: There is no such library.
    """
    libraries = {'own': DenseCRF, 'pydensecrf': PyDenseCRF}
    if library not in libraries:
        raise ValueError(f'library must be one of {sorted(libraries)}, not {library!r}')
    return libraries[library](image, settings)
