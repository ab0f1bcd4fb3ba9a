"""Helpers that data sets, mining and networks share."""
