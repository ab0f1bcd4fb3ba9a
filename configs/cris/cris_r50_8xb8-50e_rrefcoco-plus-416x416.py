_base_ = [
    '../_base_/models/cris_r50.py',
    '../_base_/datasets/rrefcoco-plus.py',
    '../_base_/schedules/cris_50e.py',
    '../_base_/default_runtime.py',
]

default_hooks = dict(checkpoint=dict(save_best='rIoU'))
