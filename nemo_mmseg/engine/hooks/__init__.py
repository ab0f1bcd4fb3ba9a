"""Hooks for MMEngine's runner."""

from .channels_last_hook import ChannelsLastHook
from .compile_hook import CompileHook
from .cpu_precision_hook import CPUPrecisionHook
from .iteration_seed_hook import IterationSeedHook
from .mean_displacement_hook import MeanDisplacementHook
from .mosaic_statistics_hook import MosaicStatisticsHook
from .negative_mining_hook import NegativeMiningHook
from .referring_visualization_hook import ReferringVisualizationHook

__all__ = [
    'CPUPrecisionHook',
    'ChannelsLastHook',
    'CompileHook',
    'IterationSeedHook',
    'MeanDisplacementHook',
    'MosaicStatisticsHook',
    'NegativeMiningHook',
    'ReferringVisualizationHook',
]
