# VPD (Zhao et al., 2023) as published: the UNet of Stable Diffusion 1.5, its frozen image encoder
# and its frozen CLIP. 40 tokens per expression, as published for RefCOCO and RefCOCO+.
sd_weights = (
    'https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5/resolve/main/'
    'v1-5-pruned-emaonly.safetensors'
)
model = dict(
    type='ReferringSegmentor',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # from -1 to 1
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=True,
        size_divisor=1,
        pad_val=0,
        seg_pad_val=255,
    ),
    text_encoder=dict(
        type='VPDTextEncoder',
        clip=dict(model='ViT-L-14-quickgelu', pretrained='openai'),
        context_length=40,
    ),
    backbone=dict(type='VAEEncoder', pretrained=sd_weights),
    # a file, or the folder of a pipeline that diffusers saved
    neck=dict(type='VPDUNet', pretrained=sd_weights),
    decode_head=dict(
        type='LAVTHead',
        # the UNet's, and in the middle a map for each token
        in_channels=(320, 640 + 40, 1280 + 40, 1280),
        loss_decode=dict(type='CrossEntropyLoss', class_weight=[0.9, 1.1]),
    ),
    train_cfg=dict(),
    test_cfg=dict(protocol=dict(type='LAVTProtocol', size=(512, 512)), chunk_size=8),
)
