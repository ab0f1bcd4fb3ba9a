# A handful of photographs in RefCOCO's layout, to train and evaluate on the same expressions. Every
# image is stretched.
_base_ = './refcoco.py'
data_root = 'data/refphotos/'
data_prefix = dict(img_path='train2014/')
bank_name = 'refphotos'
image_size = (192, 192)

resize = dict(type='Resize', scale=image_size[::-1], keep_ratio=False)
load_transforms = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask'), resize]
test_pipeline = [
    dict(type='LoadReferringImage'),
    resize,
    dict(type='LoadReferentMask'),
    *_base_.pack_transforms,
]
files = dict(data_root=data_root, data_prefix=data_prefix)
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    sampler=dict(type='InfiniteReferringSampler'),
    dataset=dict(
        **files,
        group_by='expression',
        pipeline=[*_base_.sample_transforms, *load_transforms, *_base_.pack_transforms],
    ),
)
val_dataloader = dict(num_workers=1, dataset=dict(**files, split='train', pipeline=test_pipeline))
test_dataloader = val_dataloader
