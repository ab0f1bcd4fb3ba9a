_base_ = [
    './cris_refshapes-clip_1xb16-4e_grefshapes-256x256.py',
    '../_base_/negative_expressions_mined_refshapes.py',
]

negative_expression = dict(
    _base_.negative_expression,
    bank=dict(
        _base_.expression_bank,
        path=f'{_base_.data_root}banks/{_base_.bank_name}_train_expressions_refshapes-clip.safetensors',
    ),
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            *_base_.sample_transforms,
            negative_expression,
            *_base_.load_transforms,
            *_base_.pack_transforms,
        ]
    )
)
custom_hooks = [dict(type='NegativeMiningHook')]
