"""Metrics of referring image segmentation."""
