"""What the runner calls while it trains and tests."""

from .hooks import (
    ChannelsLastHook,
    CompileHook,
    IterationSeedHook,
    MosaicStatisticsHook,
    NegativeMiningHook,
    ReferringVisualizationHook,
)
from .optim_wrappers import BFloat16OptimWrapper

__all__ = [
    'BFloat16OptimWrapper',
    'ChannelsLastHook',
    'CompileHook',
    'IterationSeedHook',
    'MosaicStatisticsHook',
    'NegativeMiningHook',
    'ReferringVisualizationHook',
]
