# TRIS, stage 2, with CLIP's ResNet-101; what differs from R50 is CLIP.
_base_ = './tris-stage2_r50.py'
clip = dict(model='RN101-quickgelu', pretrained='openai')
model = dict(text_encoder=clip, backbone=clip)
