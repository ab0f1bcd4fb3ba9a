"""Published checkpoints, renamed to ours.

A converter takes a published checkpoint and returns our state dict, together with what it left out
and why. It raises an error that names any tensor it does not know.
"""

from .converter import Converter
from .cris import convert_cris
from .lavt import convert_lavt, convert_lavt_one

CONVERTERS = {'cris': convert_cris, 'lavt': convert_lavt, 'lavt_one': convert_lavt_one}

__all__ = ['CONVERTERS', 'Converter', 'convert_cris', 'convert_lavt', 'convert_lavt_one']
