"""Losses, and the ground truth they compare with."""
