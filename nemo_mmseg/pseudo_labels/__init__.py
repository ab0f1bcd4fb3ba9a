"""From response maps to pseudo masks: how networks learn from expressions without masks."""

from .confidence_dataset import AffinityCrop, ConfidenceLabelDataset, LoadConfidenceLabel

__all__ = ['AffinityCrop', 'ConfidenceLabelDataset', 'LoadConfidenceLabel']
