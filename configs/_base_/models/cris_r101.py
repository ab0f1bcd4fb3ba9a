# CRIS with CLIP's ResNet-101 (Wang et al., 2022); what differs from R50 is CLIP and its sentence
# size.
_base_ = './cris_r50.py'
clip = dict(model='RN101-quickgelu', pretrained='openai')
model = dict(
    text_encoder=clip,
    backbone=clip,
    neck=dict(in_channels=[512, 1024, 512], sentence_channels=512),
    decode_head=dict(sentence_channels=512),
)
