# RefShapes, appearance variant (made by tools/dataset_converters/make_refshapes.py). As in NeMo's
# release, every image is stretched to the network's input.
_base_ = './refcoco.py'
data_root = 'data/refshapes/'
ann_file = 'refshapes+/instances.json'
split_file = 'refshapes+/refs(unc).p'
data_prefix = dict(img_path='train2014/')
bank_name = 'refshapes-plus'
image_size = (256, 256)

resize = dict(type='Resize', scale=image_size[::-1], keep_ratio=False)
load_transforms = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask'), resize]
test_pipeline = [
    dict(type='LoadReferringImage'),
    resize,
    dict(type='LoadReferentMask'),
    *_base_.pack_transforms,
]
files = dict(data_root=data_root, ann_file=ann_file, split_file=split_file, data_prefix=data_prefix)
train_dataloader = dict(
    batch_size=16,
    num_workers=2,
    dataset=dict(
        **files, pipeline=[*_base_.sample_transforms, *load_transforms, *_base_.pack_transforms]
    ),
)
val_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(**files, pipeline=test_pipeline))
test_dataloader = val_dataloader
