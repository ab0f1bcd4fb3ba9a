_base_ = './lavt_swin-large-w12.py'
model = dict(
    backbone=dict(
        window_size=7,
        pretrained=_base_.swin_weights + 'swin_large_patch4_window7_224_22k.pth',
    ),
)
