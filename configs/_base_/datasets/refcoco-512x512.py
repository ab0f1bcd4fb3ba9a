# RefCOCO as VPD reads it: cleaned expressions, image and mask stretched to 512x512 by PIL (the
# image antialiased, the mask by nearest pixel).
_base_ = './refcoco.py'
image_size = (512, 512)

resize = dict(type='Resize', scale=image_size[::-1], keep_ratio=False, backend='pillow')
load_transforms = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask'), resize]
train_pipeline = [*_base_.sample_transforms, *load_transforms, *_base_.pack_transforms]
# The mask stays at the size of the image: the test protocol stretches it.
test_pipeline = [
    dict(type='LoadReferringImage'),
    resize,
    dict(type='LoadReferentMask'),
    *_base_.pack_transforms,
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
# As published: an IoU of exactly the threshold counts, and an empty union counts 0.
val_evaluator = dict(tie='>=', empty_union=0.0)
test_evaluator = val_evaluator
