# gRefCOCO as ReLA reads it: expressions as typed, the image stretched to 480x480 by PIL, the mask
# drawn there from polygons that were stretched likewise. Every expression is a training sample.
_base_ = './refcoco-480x480.py'
dataset_type = 'GRefCOCODataset'
ann_file = 'grefcoco/instances.json'
split_file = 'grefcoco/grefs(unc).json'
bank_name = 'grefcoco_unc_raw'

load_transforms = [
    dict(type='LoadReferringImage'),
    _base_.resize,
    dict(type='LoadReferentMask', stretch=True),
]
test_pipeline = [*load_transforms, *_base_.pack_transforms]
files = dict(type=dataset_type, ann_file=ann_file, split_file=split_file)
train_dataloader = dict(
    batch_size=6,
    sampler=dict(type='InfiniteReferringSampler'),
    dataset=dict(
        **files,
        group_by='expression',
        pipeline=[*_base_.sample_transforms, *load_transforms, *_base_.pack_transforms],
    ),
)
val_dataloader = dict(dataset=dict(**files, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='GeneralizedReferringIoU')
test_evaluator = val_evaluator
