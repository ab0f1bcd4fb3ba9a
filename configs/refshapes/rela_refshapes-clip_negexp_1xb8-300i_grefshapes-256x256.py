_base_ = [
    './rela_refshapes-clip_1xb8-300i_grefshapes-256x256.py',
    '../_base_/negative_expressions.py',
]

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            *_base_.sample_transforms,
            _base_.negative_expression,
            *_base_.load_transforms,
            *_base_.pack_transforms,
        ]
    )
)
