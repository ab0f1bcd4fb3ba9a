"""Inference on images and expressions from Python."""
