# RefCOCO as TRIS reads it: image and mask stretched to 320x320 by PIL (the image antialiased, the
# mask by nearest pixel).
_base_ = './refcoco.py'
image_size = (320, 320)

resize = dict(type='Resize', scale=image_size[::-1], keep_ratio=False, backend='pillow')
load_transforms = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask'), resize]
train_pipeline = [*_base_.sample_transforms, *load_transforms, *_base_.pack_transforms]
# Training from text alone: no mask is read. Each expression gets three negatives.
text_pipeline = [
    *_base_.sample_transforms,
    dict(type='SampleNegativeExpressions', num=3),
    dict(type='LoadReferringImage'),
    resize,
    dict(type='PackReferringInputs', extra_keys=['negative_expressions']),
]
# Mask and boxes stay at the size of the image: there predictions are compared.
test_pipeline = [
    dict(type='LoadReferringImage'),
    resize,
    dict(type='LoadReferentMask'),
    dict(type='LoadReferentBoxes'),
    *_base_.pack_transforms,
]
# Masks that the steps between the two stages make, in the layout of the annotation file.
pseudo_masks = f'pseudo_masks/{_base_.bank_name}_train/instances.json'

train_dataloader = dict(batch_size=48, drop_last=False, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
# As published, an empty union counts 0.
val_evaluator = dict(_delete_=True, type='ReferringLocalization', empty_union=0.0)
test_evaluator = val_evaluator
