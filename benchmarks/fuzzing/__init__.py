"""Parts of ``benchmarks/fuzz_files.py``: mutations, what reads the files, and independent truths."""
