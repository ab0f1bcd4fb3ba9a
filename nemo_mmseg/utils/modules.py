"""Import of whole packages, so that what a new file registers is known."""

import importlib
import pkgutil
from collections.abc import Iterable


def import_modules(package: str, path: Iterable[str]) -> None:
    """Import all modules of a package.

    Args:
        package: Name of the package, its ``__name__``.
        path: Folders of the package, its ``__path__``.
    """
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f'{package}.{module.name}')
