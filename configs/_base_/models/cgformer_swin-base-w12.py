# CGFormer (Tang et al., 2023) as published: LAVT's Swin-B with eight heads in its fusions, BERT-
# base of which everything learns, two tokens of 512 channels.
_base_ = './lavt_swin-base-w12.py'
model = dict(
    text_encoder=dict(frozen=(), dropout=True),
    backbone=dict(fusion_heads=(8, 8, 8, 8)),
    decode_head=dict(
        _delete_=True,
        type='CGFormerHead',
        in_channels=(128, 256, 512, 1024),
        word_channels=768,
        channels=512,
        image_size=(480, 480),  # configs give the size of their data set
    ),
    # A map of the last convolutions takes 0.5 GB an expression, in float32.
    test_cfg=dict(protocol=dict(type='CGFormerProtocol'), chunk_size=8),
)
