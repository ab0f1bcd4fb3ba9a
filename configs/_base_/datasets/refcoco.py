# RefCOCO (unc). The images of all RefCOCO variants are COCO's train2014; docs/data.md shows the
# folders.
dataset_type = 'RefCOCODataset'
data_root = 'data/'
ann_file = 'refcoco/instances.json'
split_file = 'refcoco/refs(unc).p'
data_prefix = dict(img_path='coco/train2014/')
bank_name = 'refcoco_unc'
image_size = (416, 416)

# A pipeline in three parts, so that an augmentation can take the place of the middle one.
sample_transforms = [dict(type='SampleExpressions', num=1)]
load_transforms = [
    dict(type='LoadReferringImage'),
    dict(type='LoadReferentMask'),
    dict(type='Letterbox', size=image_size),
]
pack_transforms = [dict(type='PackReferringInputs')]
train_pipeline = [*sample_transforms, *load_transforms, *pack_transforms]
# The mask is loaded after the resize: predictions are compared at the size of the original image.
test_pipeline = [
    dict(type='LoadReferringImage'),
    dict(type='Letterbox', size=image_size),
    dict(type='LoadReferentMask'),
    *pack_transforms,
]

train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='ReferringSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file=ann_file,
        split_file=split_file,
        split='train',
        data_prefix=data_prefix,
        group_by='reference',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file=ann_file,
        split_file=split_file,
        split='val',
        data_prefix=data_prefix,
        group_by='image',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='ReferringIoU')
test_evaluator = val_evaluator
