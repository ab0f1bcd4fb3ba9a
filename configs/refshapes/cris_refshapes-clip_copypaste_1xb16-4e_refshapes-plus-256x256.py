_base_ = ['./cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256.py', '../_base_/copypaste.py']

# As often as the demo's NeMo.
copypaste = dict(_base_.copypaste, prob=0.3, transforms=_base_.load_transforms)
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.sample_transforms, copypaste, *_base_.pack_transforms])
)
