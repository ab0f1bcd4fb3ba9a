"""What `tools/train_refshapes_clip.py` trains, on what, and by which losses."""
