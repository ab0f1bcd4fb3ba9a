# Your own data in the JSON form (docs/own_data.md). Every image is stretched to the network's input.
_base_ = './refcoco.py'
data_root = 'data/own/'
ann_file = 'own.json'
data_prefix = dict(img_path='images/', mask_path='masks/')
bank_name = 'own'
image_size = (256, 256)

resize = dict(type='Resize', scale=image_size[::-1], keep_ratio=False)
load_transforms = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask'), resize]
test_pipeline = [
    dict(type='LoadReferringImage'),
    resize,
    dict(type='LoadReferentMask'),
    *_base_.pack_transforms,
]
files = dict(
    _delete_=True,
    type='ReferringJSONDataset',
    data_root=data_root,
    ann_file=ann_file,
    data_prefix=data_prefix,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    drop_last=False,
    dataset=dict(
        **files,
        split='train',
        pipeline=[*_base_.sample_transforms, *load_transforms, *_base_.pack_transforms],
    ),
)
val_dataloader = dict(
    num_workers=1,
    dataset=dict(**files, split='val', group_by='image', test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='ReferringIoU', by=['distractors', 'length', 'area', 'position'])
test_evaluator = val_evaluator
