"""What the runner calls while it trains and tests."""

from .hooks import (
    IterationSeedHook,
    MosaicStatisticsHook,
    NegativeMiningHook,
    ReferringVisualizationHook,
)

__all__ = [
    'IterationSeedHook',
    'MosaicStatisticsHook',
    'NegativeMiningHook',
    'ReferringVisualizationHook',
]
