"""Where this package keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(kind: str) -> Path | None:
    """A folder in ``$NEMO_MMSEG_CACHE``, else in ``nemo_mmseg`` among the user's caches.

    Args:
        kind: Name of the folder, e.g. ``'embeddings'``. It is not made.

    Returns:
        The folder; None for a user without a home, as containers have.
    """
    own = os.environ.get('NEMO_MMSEG_CACHE')
    if own:
        return Path(own, kind)
    try:
        caches = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    except RuntimeError:
        return None
    return Path(caches, 'nemo_mmseg', kind)
