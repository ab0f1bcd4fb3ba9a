"""A file backend of MMEngine whose files are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from nemo_mmseg.utils.atomic_write import write_bytes


class WholeFileBackend(LocalBackend):
    """Local files that get their name when they are written to the end, e.g. for checkpoints.

    A hook has it by ``CheckpointHook(backend_args=dict(backend='whole_file'))``. MMEngine's own
    leaves a part under the name of the whole when the disk is full or the process is killed.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file; its folder is made.

        Raises:
            OSError: The disk is full, ...; the message names the file.
        """
        write_bytes(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write a text to a file; as :meth:`put`."""
        write_bytes(filepath, obj.encode(encoding))


register_backend('whole_file', WholeFileBackend, force=True)
