"""Pictures of expressions, masks and comparisons."""

from .referring_visualizer import ReferringVisualizer

__all__ = ['ReferringVisualizer']
