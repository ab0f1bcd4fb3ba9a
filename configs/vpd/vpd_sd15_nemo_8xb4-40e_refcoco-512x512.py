_base_ = ['./vpd_sd15_8xb4-40e_refcoco-512x512.py', '../_base_/nemo.py']

bank = dict(
    _base_.bank,
    path=f'{_base_.data_root}banks/{_base_.bank_name}_train_vit-b-32_openai.safetensors',
)
nemo = dict(_base_.nemo, bank=bank, size=_base_.image_size, transforms=_base_.load_transforms)
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.sample_transforms, nemo, *_base_.pack_transforms])
)
