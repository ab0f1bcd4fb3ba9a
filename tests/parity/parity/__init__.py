"""Comparisons with what the published implementations returned; a file for each method.

The file of a method, named after it, or of one case, named as its folder, has ``CASES``: names of
the folders that it knows; ``CHECKS``: name -> function that takes a case folder and yields
comparisons; and ``SMALL``: what the tests of this project keep of a case (see :mod:`.small`); a
case whose values are not in ``case.npz`` has ``FILES``. A file with ``CHECKS`` is a method.
"""

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from .small import write_small

_modules = [import_module(f'{__name__}.{found.name}') for found in iter_modules(__path__)]
METHODS = {
    module.__name__.rpartition('.')[2]: module for module in _modules if hasattr(module, 'CHECKS')
}


def method_of(folder: str) -> ModuleType | None:
    """The file of a case folder, by its whole name or by the method that it begins with."""
    return METHODS.get(folder) or METHODS.get(folder.split('_')[0])


__all__ = ['METHODS', 'method_of', 'write_small']
