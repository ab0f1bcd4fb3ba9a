"""Necks."""

from .cris_neck import CRISNeck

__all__ = ['CRISNeck']
