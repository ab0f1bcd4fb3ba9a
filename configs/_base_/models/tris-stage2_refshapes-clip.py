# TRIS, stage 2, in small, on the small CLIP that comes with the package.
_base_ = './tris-stage1_refshapes-clip.py'
model = dict(
    # It reads the words alone.
    text_encoder=dict(sentence=False),
    backbone=dict(out_indices=(0, 1, 2, 3)),
    decode_head=dict(
        _delete_=True,
        type='TRISMaskHead',
        in_channels=(64, 128, 256, 512),
        word_channels=128,
        channels=(32, 64, 128, 256),
        side_channels=(16, 16, 32, 32),
    ),
    test_cfg=dict(protocol=dict(response=False)),
)
