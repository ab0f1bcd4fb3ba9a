_base_ = [
    './cris_refshapes-clip_1xb16-4e_refshapes-plus-json-256x256.py',
    '../_base_/nemo_refshapes.py',
]

bank = dict(
    _base_.bank,
    path=f'{_base_.data_root}banks/{_base_.bank_name}_train_refshapes-clip.safetensors',
)
nemo = dict(_base_.nemo, bank=bank, size=_base_.image_size, transforms=_base_.load_transforms)
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.sample_transforms, nemo, *_base_.pack_transforms])
)
