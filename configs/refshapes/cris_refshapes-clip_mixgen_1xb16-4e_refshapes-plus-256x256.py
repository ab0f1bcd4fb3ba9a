_base_ = ['./cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256.py', '../_base_/mixgen.py']

# As often as the demo's NeMo.
mixgen = dict(_base_.mixgen, prob=0.3, transforms=_base_.load_transforms)
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.sample_transforms, mixgen, *_base_.pack_transforms])
)
