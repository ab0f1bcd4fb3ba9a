_base_ = [
    '../_base_/models/cris_r50_scratch.py',
    '../_base_/datasets/refphotos.py',
    '../_base_/schedules/scratch_300i.py',
]
optim_wrapper = dict(optimizer=dict(lr=1e-4))
