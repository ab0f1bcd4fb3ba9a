"""Hooks, optimizer wrappers and a file backend of MMEngine's runner."""

from . import hooks, optim_wrappers
from .whole_file_backend import WholeFileBackend

__all__ = ['WholeFileBackend', 'hooks', 'optim_wrappers']
