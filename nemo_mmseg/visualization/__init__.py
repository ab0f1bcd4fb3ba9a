"""Drawing of expressions and masks."""

from .referring_visualizer import ReferringVisualizer

__all__ = ['ReferringVisualizer']
