# ReferIt, stretched to 480x480 by PIL; masks of all expressions are compared, not boxes.
_base_ = './referit.py'
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
train_dataloader = dict(batch_size=8, drop_last=True, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(min_box_area=0.0, pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(min_box_area=0.0, pipeline=test_pipeline))
val_evaluator = dict(_delete_=True, type='ReferringIoU', tie='>', empty_union=0.0)
test_evaluator = val_evaluator
