_base_ = './lavt_swin-base-w12.py'
model = dict(
    backbone=dict(
        embed_dims=192,
        depths=(2, 2, 18, 2),
        num_heads=(6, 12, 24, 48),
        window_size=12,
        pretrained=_base_.swin_weights + 'swin_large_patch4_window12_384_22k.pth',
    ),
    decode_head=dict(in_channels=(192, 384, 768, 1536)),
)
