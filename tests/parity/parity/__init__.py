"""Comparisons with what the published implementations returned; a file for each method.

The file of a method, named after it, has ``CASES``: names of the folders that it knows; ``CHECKS``:
name -> function that takes a case folder and yields comparisons; and ``SMALL``: what the tests of
this project keep of a case (see :mod:`.small`). A file with ``CHECKS`` is a method.
"""

from importlib import import_module
from pkgutil import iter_modules

from .small import write_small

_modules = [import_module(f'{__name__}.{found.name}') for found in iter_modules(__path__)]
METHODS = {
    module.__name__.rpartition('.')[2]: module for module in _modules if hasattr(module, 'CHECKS')
}

__all__ = ['METHODS', 'write_small']
