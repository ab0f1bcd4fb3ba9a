# The demo's network on a handful of photographs in RefCOCO's layout, in an iteration loop: does it
# learn them by heart? Evaluated on its own training expressions.
_base_ = './cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256.py'
data_root = 'data/refphotos/'
bank_name = 'refphotos'
image_size = (384, 384)
max_iters = 600

resize = dict(type='Resize', scale=image_size[::-1], keep_ratio=False)
load_transforms = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask'), resize]
train_pipeline = [*_base_.sample_transforms, *load_transforms, *_base_.pack_transforms]
test_pipeline = [
    dict(type='LoadReferringImage'),
    resize,
    dict(type='LoadReferentMask'),
    *_base_.pack_transforms,
]
files = dict(
    data_root=data_root, ann_file='refcoco/instances.json', split_file='refcoco/refs(unc).p'
)
train_dataloader = dict(
    batch_size=8,
    sampler=dict(type='InfiniteReferringSampler'),
    dataset=dict(**files, group_by='expression', pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(**files, split='train', pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=max_iters, eta_min_ratio=0.02),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=max_iters))
log_processor = dict(by_epoch=False)
