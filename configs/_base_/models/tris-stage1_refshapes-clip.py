# TRIS, stage 1, in small, on the small CLIP that comes with the package.
_base_ = './tris-stage1_r50.py'
clip = dict(model='RefShapes-CLIP', pretrained='refshapes')
model = dict(
    data_preprocessor=dict(
        # CLIP's, as this one was trained
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
    ),
    text_encoder=dict(context_length=16, **clip),
    backbone=clip,
    decode_head=dict(in_channels=512, sentence_channels=128, channels=128),
)
