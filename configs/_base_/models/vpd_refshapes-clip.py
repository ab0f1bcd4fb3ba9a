# A small VPD without a download, on the small CLIP that comes with the package. Its UNet and its
# image encoder start from noise, so the encoder learns, too.
_base_ = './vpd_sd15.py'
model = dict(
    text_encoder=dict(clip=dict(model='RefShapes-CLIP', pretrained='refshapes'), context_length=16),
    backbone=dict(block_channels=(32, 32, 64, 64), layers_per_block=1, frozen=(), pretrained=None),
    neck=dict(
        block_channels=(32, 64, 128, 128), layers_per_block=1, word_channels=128, pretrained=None
    ),
    decode_head=dict(in_channels=(32, 64 + 16, 128 + 16, 128)),
    test_cfg=dict(protocol=dict(_delete_=True, type='OriginalProtocol')),
)
