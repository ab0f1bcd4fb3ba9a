_base_ = ['./cris_r50_8xb8-50e_refcocog-umd-416x416.py', '../_base_/mosaic.py']

mosaic = dict(_base_.mosaic, size=_base_.image_size, transforms=_base_.load_transforms)
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.sample_transforms, mosaic, *_base_.pack_transforms])
)
