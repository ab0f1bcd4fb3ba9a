_base_ = [
    '../_base_/models/lavt_swin-base-w12.py',
    '../_base_/datasets/refcoco-joint-480x480.py',
    '../_base_/schedules/lavt_40e.py',
    '../_base_/default_runtime.py',
]
