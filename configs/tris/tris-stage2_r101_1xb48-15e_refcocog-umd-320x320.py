_base_ = [
    '../_base_/models/tris-stage2_r101.py',
    '../_base_/datasets/refcocog-umd-320x320.py',
    '../_base_/schedules/tris-stage2_15e.py',
    '../_base_/default_runtime.py',
]

# It learns the masks that were made of response maps, and is tested with the annotated ones.
train_dataloader = dict(dataset=dict(ann_file=_base_.pseudo_masks))
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
