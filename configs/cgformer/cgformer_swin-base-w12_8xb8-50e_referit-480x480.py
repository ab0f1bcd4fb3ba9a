_base_ = [
    '../_base_/models/cgformer_swin-base-w12.py',
    '../_base_/datasets/referit-480x480.py',
    '../_base_/schedules/cgformer_50e.py',
    '../_base_/default_runtime.py',
]
model = dict(decode_head=dict(image_size=_base_.image_size))
