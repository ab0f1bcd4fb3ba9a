_base_ = [
    '../_base_/models/caris_swin-base-w7.py',
    '../_base_/datasets/refcoco-plus-448x448.py',
    '../_base_/schedules/caris_50e.py',
    '../_base_/default_runtime.py',
]
