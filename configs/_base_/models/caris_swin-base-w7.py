# CARIS (Liu et al., 2023) as published: Swin-B with windows of 7 and without language, BERT-base
# that reads prompts from the image. Everything learns.
_base_ = './lavt_swin-base-w12.py'
model = dict(
    text_encoder=dict(type='PromptedBERTTextEncoder', frozen=(), dropout=True),
    backbone=dict(
        _delete_=True,
        type='PlainSwinTransformer',
        embed_dims=128,
        depths=(2, 2, 18, 2),
        num_heads=(4, 8, 16, 32),
        window_size=7,
        drop_path_rate=0.3,
        pretrained=_base_.swin_weights + 'swin_base_patch4_window7_224_22k.pth',
    ),
    neck=dict(type='CARISNeck', in_channels=(128, 256, 512, 1024), word_channels=768),
    decode_head=dict(
        _delete_=True,
        type='CARISHead',
        fine_channels=128,
        word_channels=768,
        loss_decode=dict(type='CrossEntropyLoss', class_weight=[0.9, 1.1]),
    ),
    # LAVT's protocol at the size of CARIS's input
    test_cfg=dict(protocol=dict(size=(448, 448))),
)
