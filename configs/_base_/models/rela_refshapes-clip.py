# A small ReLA on the small CLIP that comes with the package, which projects/refshapes_clip/train.py
# makes.
clip = dict(model='RefShapes-CLIP', pretrained='refshapes')
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
    text_encoder=dict(type='OpenCLIPTextEncoder', context_length=24, sentence=False, **clip),
    backbone=dict(
        type='WordFusedBackbone',
        backbone=dict(
            type='OpenCLIPResNet', out_indices=(0, 1, 2, 3), attention_pool=False, **clip
        ),
        channels=(64, 128, 256, 512),
        word_channels=128,
    ),
    neck=dict(
        type='ReLAPixelDecoder',
        in_channels=(64, 128, 256, 512),
        channels=64,
        num_layers=1,
        num_heads=4,
        feedforward_channels=128,
    ),
    decode_head=dict(
        type='ReLAHead',
        channels=64,
        word_channels=128,
        num_layers=3,
        num_heads=4,
        feedforward_channels=128,
    ),
    train_cfg=dict(),
    test_cfg=dict(protocol=dict(type='OriginalProtocol'), chunk_size=32),
)
