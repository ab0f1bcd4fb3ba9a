# A small CRIS on the small CLIP that comes with the package (made by projects/refshapes_clip/train.py).
_base_ = './cris_r50.py'
clip = dict(model='RefShapes-CLIP', pretrained='refshapes')
model = dict(
    text_encoder=dict(context_length=16, **clip),
    backbone=clip,
    neck=dict(in_channels=[128, 256, 128], sentence_channels=128, channels=[64, 96, 128]),
    decode_head=dict(
        in_channels=96,
        word_channels=128,
        sentence_channels=128,
        num_layers=1,
        num_heads=4,
        feedforward_channels=256,
        dropout=0.0,
        # Objects are small: masks misplaced by a third of a cell would cost much.
        gt_resize='area',
    ),
)
