"""One place where the library diffusers is asked for the networks of Stable Diffusion."""

from __future__ import annotations

from types import ModuleType


def import_diffusers(what: str) -> ModuleType:
    """Return the module diffusers, or say how to install it.

    It is an extra of this package, and is imported when a network that needs it is built.

    Args:
        what: What needs it, for the message.

    Raises:
        ImportError: It cannot be imported.
    """
    try:
        import diffusers
    except ImportError as error:
        raise ImportError(
            f'{what} needs diffusers ({error}): pip install "nemo-mmsegmentation[diffusion]", or '
            'pip install diffusers'
        ) from error
    return diffusers
