"""Hooks for MMEngine's runner."""
