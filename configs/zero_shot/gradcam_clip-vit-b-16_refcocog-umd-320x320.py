_base_ = [
    '../_base_/models/gradcam_clip-vit-b-16.py',
    '../_base_/datasets/refcocog-umd-320x320.py',
    '../_base_/schedules/untrained.py',
    '../_base_/default_runtime.py',
]
train_dataloader = None
