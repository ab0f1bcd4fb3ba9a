"""Published checkpoints, renamed to ours.

A converter takes a published state dict and returns ours, together with what it left out and why.
It raises an error that names any tensor it does not know.
"""

from .cris import convert_cris

CONVERTERS = {'cris': convert_cris}

__all__ = ['CONVERTERS', 'convert_cris']
