_base_ = [
    '../_base_/models/caris_swin-tiny-w7_minilm.py',
    '../_base_/datasets/refphotos.py',
    '../_base_/schedules/scratch_300i.py',
]
