_base_ = './caris_swin-base-w7.py'
model = dict(
    backbone=dict(
        embed_dims=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        pretrained=_base_.swin_weights + 'swin_tiny_patch4_window7_224.pth',
    ),
    neck=dict(in_channels=(96, 192, 384, 768)),
    decode_head=dict(fine_channels=96),
)
