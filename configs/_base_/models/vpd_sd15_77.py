# VPD with 77 tokens per expression, as published for RefCOCOg.
_base_ = './vpd_sd15.py'
model = dict(
    text_encoder=dict(context_length=77),
    decode_head=dict(in_channels=(320, 640 + 77, 1280 + 77, 1280)),
)
