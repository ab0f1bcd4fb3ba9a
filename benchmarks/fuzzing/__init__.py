"""Parts of ``benchmarks/fuzz_files.py``: mutations, readers of files, and independent truths."""
