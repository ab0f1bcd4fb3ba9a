_base_ = [
    '../_base_/models/rela_swin-base-w12.py',
    '../_base_/datasets/ref-zom-480x480.py',
    '../_base_/schedules/rela_150000i.py',
]
default_hooks = dict(checkpoint=dict(save_best='oIoU'))
