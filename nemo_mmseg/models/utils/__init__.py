"""What several parts of networks share."""

from .clip_towers import build_text_tower, build_visual_tower, copy_weights
from .position import sine_position_1d, sine_position_2d

__all__ = [
    'build_text_tower',
    'build_visual_tower',
    'copy_weights',
    'sine_position_1d',
    'sine_position_2d',
]
