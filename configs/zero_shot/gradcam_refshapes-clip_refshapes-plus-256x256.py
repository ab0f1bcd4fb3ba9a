# Response maps of the small CLIP of the package, which nobody trained for it.
_base_ = [
    '../_base_/models/gradcam_refshapes-clip.py',
    '../_base_/datasets/refshapes-plus.py',
    '../_base_/schedules/untrained.py',
    '../_base_/default_runtime.py',
]
image_size = (256, 256)
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
val_evaluator = dict(_delete_=True, type='ReferringLocalization', empty_union=0.0)
test_evaluator = val_evaluator
# What tools/pseudo_labels/make_response_maps.py keeps of a reference.
response_maps = dict(
    split='train', selection=dict(type='PRMS', model='RefShapes-CLIP', pretrained='refshapes')
)
