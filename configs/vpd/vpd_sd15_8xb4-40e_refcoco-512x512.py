_base_ = [
    '../_base_/models/vpd_sd15.py',
    '../_base_/datasets/refcoco-512x512.py',
    '../_base_/schedules/vpd_40e.py',
    '../_base_/default_runtime.py',
]
model = dict(backbone=dict(image_size=_base_.image_size))
