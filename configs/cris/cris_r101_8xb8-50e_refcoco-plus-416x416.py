_base_ = [
    '../_base_/models/cris_r101.py',
    '../_base_/datasets/refcoco-plus.py',
    '../_base_/schedules/cris_50e.py',
    '../_base_/default_runtime.py',
]
