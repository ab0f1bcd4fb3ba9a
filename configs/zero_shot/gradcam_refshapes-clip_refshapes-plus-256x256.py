# Response maps of the small CLIP of the package, which nobody trained for it.
_base_ = [
    '../_base_/models/gradcam_refshapes-clip.py',
    '../_base_/datasets/refshapes-plus_boxes.py',
    '../_base_/schedules/untrained.py',
    '../_base_/default_runtime.py',
]
train_dataloader = None
