# TRIS, stage 1 (Liu et al., 2023): response maps of CLIP's ResNet-50, learned from sentences alone.
clip = dict(model='RN50-quickgelu', pretrained='openai')
model = dict(
    type='ReferringSegmentor',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # ImageNet's mean and standard deviation times 255, although the encoder is CLIP's
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size_divisor=32,
        pad_val=0,
        seg_pad_val=255,
    ),
    text_encoder=dict(type='OpenCLIPTextEncoder', context_length=20, **clip),
    backbone=dict(type='OpenCLIPResNet', out_indices=(3,), attention_pool=False, **clip),
    decode_head=dict(type='TRISHead', in_channels=2048, sentence_channels=1024, channels=1024),
    train_cfg=dict(),
    test_cfg=dict(protocol=dict(type='TRISProtocol'), chunk_size=32),
)
