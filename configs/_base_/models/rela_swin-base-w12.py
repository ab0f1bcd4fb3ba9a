# ReLA (Liu et al., 2023) as published: Swin-B with windows of 12, BERT-base of which layers 0 to 9
# learn. The other size changes Swin's four numbers, its pretrained weights and the neck's channels.
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
        type='BERTTextEncoder',
        model='bert-base-uncased',  # or a local folder
        config={},  # BERT-base; None asks the folder or the hub
        context_length=20,
        frozen=('embeddings', 'encoder.layer.10', 'encoder.layer.11'),
        dropout=True,
    ),
    backbone=dict(
        type='LAVTSwinTransformer',
        embed_dims=128,
        depths=(2, 2, 18, 2),
        num_heads=(4, 8, 16, 32),
        window_size=12,
        drop_path_rate=0.3,
        word_channels=768,
        # They stay at zero: language reaches the network by the four maps, not by Swin's stream.
        gate_init='zero',
        pretrained=swin_weights + 'swin_base_patch4_window12_384_22k.pth',
    ),
    neck=dict(type='ReLAPixelDecoder', in_channels=(128, 256, 512, 1024)),
    decode_head=dict(type='ReLAHead', word_channels=768),
    train_cfg=dict(),
    test_cfg=dict(protocol=dict(type='ReLAProtocol'), chunk_size=32),
)
