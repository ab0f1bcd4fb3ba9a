# CARIS (Liu et al., 2023) as published: Swin-B with windows of 7 and without language, BERT-base
# that reads prompts from the image. Everything learns.
swin_weights = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
model = dict(
    type='ReferringSegmentor',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # ImageNet's mean and standard deviation times 255
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size_divisor=1,  # Swin pads its own maps
        pad_val=0,
        seg_pad_val=255,
    ),
    text_encoder=dict(
        type='PromptedBERTTextEncoder',
        model='bert-base-uncased',  # or a local folder
        config={},  # BERT-base; None asks the folder or the hub
        context_length=20,
        dropout=True,
    ),
    backbone=dict(
        type='PlainSwinTransformer',
        embed_dims=128,
        depths=(2, 2, 18, 2),
        num_heads=(4, 8, 16, 32),
        window_size=7,
        drop_path_rate=0.3,
        pretrained=swin_weights + 'swin_base_patch4_window7_224_22k.pth',
    ),
    neck=dict(type='CARISNeck', in_channels=(128, 256, 512, 1024), word_channels=768),
    decode_head=dict(
        type='CARISHead',
        fine_channels=128,
        word_channels=768,
        loss_decode=dict(type='CrossEntropyLoss', class_weight=[0.9, 1.1]),
    ),
    train_cfg=dict(),
    # LAVT's protocol at the size of CARIS's input
    test_cfg=dict(protocol=dict(type='LAVTProtocol', size=(448, 448)), chunk_size=32),
)
