_base_ = [
    '../_base_/models/vpd_refshapes-clip.py',
    '../_base_/datasets/refphotos.py',
    '../_base_/schedules/scratch_300i.py',
]
model = dict(backbone=dict(image_size=_base_.image_size), neck=dict(with_cp=False))
