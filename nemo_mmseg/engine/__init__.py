"""What the runner calls while it trains and tests."""

from nemo_mmseg.engine.hooks.channels_last_hook import ChannelsLastHook
from nemo_mmseg.engine.hooks.compile_hook import CompileHook
from nemo_mmseg.engine.hooks.iteration_seed_hook import IterationSeedHook
from nemo_mmseg.engine.hooks.mosaic_statistics_hook import MosaicStatisticsHook
from nemo_mmseg.engine.hooks.negative_mining_hook import NegativeMiningHook
from nemo_mmseg.engine.hooks.referring_visualization_hook import ReferringVisualizationHook
from nemo_mmseg.engine.optim_wrappers.bfloat16_optim_wrapper import BFloat16OptimWrapper

__all__ = [
    'BFloat16OptimWrapper',
    'ChannelsLastHook',
    'CompileHook',
    'IterationSeedHook',
    'MosaicStatisticsHook',
    'NegativeMiningHook',
    'ReferringVisualizationHook',
]
