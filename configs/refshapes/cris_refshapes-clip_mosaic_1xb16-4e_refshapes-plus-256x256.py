_base_ = ['./cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256.py', '../_base_/mosaic.py']

# As often as the demo's NeMo.
mosaic = dict(
    _base_.mosaic,
    schedule=dict(random=0.3, mined=0.0),
    size=_base_.image_size,
    transforms=_base_.load_transforms,
)
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.sample_transforms, mosaic, *_base_.pack_transforms])
)
