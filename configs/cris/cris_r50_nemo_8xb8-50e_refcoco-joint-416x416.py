_base_ = ['./cris_r50_8xb8-50e_refcoco-joint-416x416.py', '../_base_/nemo.py']

# A bank for each data set: sentence ids tell expressions apart inside one data set alone.
nemo = dict(_base_.nemo, size=_base_.image_size, transforms=_base_.load_transforms)
banks = [f'{_base_.data_root}banks/{name}_train_vit-b-32_openai' for name in _base_.bank_names]
train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(
                part,
                pipeline=[
                    *_base_.sample_transforms,
                    dict(nemo, bank=dict(_base_.bank, path=f'{bank}.safetensors')),
                    *_base_.pack_transforms,
                ],
            )
            for part, bank in zip(_base_.train_dataloader.dataset.datasets, banks)
        ]
    )
)
