_base_ = [
    '../_base_/models/clipseg_vit-b-16.py',
    '../_base_/datasets/refcoco-320x320.py',
    '../_base_/schedules/untrained.py',
    '../_base_/default_runtime.py',
]
image_size = (352, 352)
resize = dict(type='Resize', scale=image_size, keep_ratio=False, backend='pillow')
test_pipeline = [
    dict(type='LoadReferringImage'),
    resize,
    dict(type='LoadReferentMask'),
    dict(type='LoadReferentBoxes'),
    dict(type='PackReferringInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_dataloader = None
