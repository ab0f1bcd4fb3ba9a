# ReferIt (RefCLEF) as TRIS, WWbL and others split and test it: the test counts expressions whose box
# covers more than 5 % of the image. docs/data.md shows the folders.
_base_ = './refcoco.py'
dataset_type = 'ReferItDataset'
data_root = 'data/referit/'
ann_file = ''
split_file = 'annotations/{split}.pickle'
data_prefix = dict(img_path='images/')
bank_name = 'referit'
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
# Masks and boxes stay at the size of the image, at which predictions are compared.
test_pipeline = [
    dict(type='LoadReferringImage'),
    resize,
    dict(type='LoadReferentMask'),
    dict(type='LoadReferentBoxes'),
    *_base_.pack_transforms,
]
files = dict(
    type=dataset_type,
    data_root=data_root,
    ann_file=ann_file,
    split_file=split_file,
    data_prefix=data_prefix,
)
train_dataloader = dict(
    batch_size=48, drop_last=False, dataset=dict(**files, pipeline=train_pipeline)
)
val_dataloader = dict(dataset=dict(**files, min_box_area=0.05, pipeline=test_pipeline))
test_dataloader = dict(
    dataset=dict(**files, split='test', min_box_area=0.05, pipeline=test_pipeline)
)
val_evaluator = dict(_delete_=True, type='ReferringLocalization', empty_union=0.0)
test_evaluator = val_evaluator
