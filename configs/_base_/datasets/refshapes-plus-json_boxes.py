# RefShapes in the JSON form, as networks that learn without masks are measured: with boxes.
_base_ = './refshapes-plus-json.py'

test_pipeline = [
    dict(type='LoadReferringImage'),
    _base_.resize,
    dict(type='LoadReferentMask'),
    dict(type='LoadReferentBoxes'),
    *_base_.pack_transforms,
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='ReferringLocalization')
test_evaluator = val_evaluator
