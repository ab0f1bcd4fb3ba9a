_base_ = ['./cris_r50_8xb8-50e_refcocog-umd-416x416.py', '../_base_/mixgen.py']

mixgen = dict(_base_.mixgen, transforms=_base_.load_transforms)
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.sample_transforms, mixgen, *_base_.pack_transforms])
)
