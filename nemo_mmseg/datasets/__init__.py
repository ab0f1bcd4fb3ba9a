"""Data sets of referring expressions, their transforms and samplers."""
