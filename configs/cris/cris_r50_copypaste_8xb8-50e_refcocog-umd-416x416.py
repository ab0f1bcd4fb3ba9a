_base_ = ['./cris_r50_8xb8-50e_refcocog-umd-416x416.py', '../_base_/copypaste.py']

copypaste = dict(_base_.copypaste, transforms=_base_.load_transforms)
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.sample_transforms, copypaste, *_base_.pack_transforms])
)
