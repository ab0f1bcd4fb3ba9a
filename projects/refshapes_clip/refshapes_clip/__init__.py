"""What `projects/refshapes_clip/train.py` trains, on what, and by which losses."""
