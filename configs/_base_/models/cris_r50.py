# CRIS with CLIP's ResNet-50 (Wang et al., 2022). Number of tokens per expression: 17 as published
# for RefCOCO and RefCOCO+; RefCOCOg's configs set 22.
clip = dict(model='RN50-quickgelu', pretrained='openai')
word_len = 17
model = dict(
    type='ReferringSegmentor',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # CLIP's mean and standard deviation times 255
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        bgr_to_rgb=True,
        size_divisor=32,
        pad_val=0,
        seg_pad_val=255,
    ),
    text_encoder=dict(type='OpenCLIPTextEncoder', context_length=word_len, **clip),
    backbone=dict(type='OpenCLIPResNet', **clip),
    neck=dict(
        type='CRISNeck',
        in_channels=[512, 1024, 1024],
        sentence_channels=1024,
        channels=[256, 512, 1024],
    ),
    decode_head=dict(
        type='CRISHead',
        in_channels=512,
        word_channels=512,
        sentence_channels=1024,
        num_layers=3,
        num_heads=8,
        feedforward_channels=2048,
        dropout=0.1,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True, avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(protocol=dict(type='CRISProtocol'), chunk_size=32),
)
