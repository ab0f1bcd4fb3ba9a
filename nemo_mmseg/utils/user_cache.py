"""Where this package keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache(kind: str) -> Path:
    """A folder in ``$NEMO_MMSEG_CACHE``, else in ``nemo_mmseg`` among the user's caches.

    Args:
        kind: Name of the folder, e.g. ``'embeddings'``. It is not made.
    """
    own = os.environ.get('NEMO_MMSEG_CACHE')
    # not Path.home(), which raises where a container's user has no home
    caches = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return Path(own or Path(caches) / 'nemo_mmseg') / kind
