# TRIS, stage 2 (Liu et al., 2023): a network for the masks that were made of response maps.
_base_ = './tris-stage1_r50.py'
model = dict(
    # It reads the words alone.
    text_encoder=dict(sentence=False),
    backbone=dict(out_indices=(0, 1, 2, 3)),
    decode_head=dict(
        _delete_=True,
        type='TRISMaskHead',
        in_channels=(256, 512, 1024, 2048),
        word_channels=512,
        channels=(64, 128, 256, 512),
        side_channels=(32, 32, 64, 64),
    ),
    test_cfg=dict(protocol=dict(response=False)),
)
