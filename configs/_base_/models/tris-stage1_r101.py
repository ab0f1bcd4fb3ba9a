# TRIS, stage 1, with CLIP's ResNet-101; what differs from R50 is CLIP and its sentence size.
_base_ = './tris-stage1_r50.py'
clip = dict(model='RN101-quickgelu', pretrained='openai')
model = dict(text_encoder=clip, backbone=clip, decode_head=dict(sentence_channels=512))
