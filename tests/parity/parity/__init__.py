"""Comparisons with what the published implementations returned; a file for each method.

A method's module has ``CASES``: names of the folders that it knows; ``CHECKS``: name -> function
that takes a case folder and yields comparisons; and ``SMALL``: what the tests of this project keep
of a case (see :mod:`.small`).
"""

from . import cris, lavt
from .small import write_small

METHODS = {'cris': cris, 'lavt': lavt}

__all__ = ['METHODS', 'write_small']
