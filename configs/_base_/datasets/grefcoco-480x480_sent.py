# gRefCOCO, cleaned expressions, stretched to 480x480 by PIL.
_base_ = './grefcoco.py'
image_size = (480, 480)

resize = dict(type='Resize', scale=image_size[::-1], keep_ratio=False, backend='pillow')
load_transforms = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask'), resize]
train_pipeline = [*_base_.sample_transforms, *load_transforms, *_base_.pack_transforms]
test_pipeline = [
    dict(type='LoadReferringImage'),
    resize,
    dict(type='LoadReferentMask'),
    *_base_.pack_transforms,
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
