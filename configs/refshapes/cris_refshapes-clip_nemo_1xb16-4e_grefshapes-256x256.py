_base_ = ['./cris_refshapes-clip_1xb16-4e_grefshapes-256x256.py', '../_base_/nemo.py']

bank = dict(
    model='RefShapes-CLIP',
    pretrained='refshapes',
    keep=1000,
    path=f'{_base_.data_root}banks/{_base_.bank_name}_train_refshapes-clip.safetensors',
)
nemo = dict(
    _base_.nemo,
    mined_prob=0.3,
    tau=0.97,
    top_k=60,
    bank=bank,
    size=_base_.image_size,
    plain=_base_.load_transforms,
)
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.sample_transforms, nemo, *_base_.pack_transforms])
)
