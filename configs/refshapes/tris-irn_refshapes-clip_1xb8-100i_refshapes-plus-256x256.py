# TRIS's affinity network in small, for two CPU cores.
_base_ = ['../_base_/models/irn_refshapes-clip.py', '../_base_/default_runtime.py']

max_iters = 100
image_size = (256, 256)
data_root = 'data/refshapes/'
label_file = 'pseudo_masks/refshapes-plus_train/confidence_labels.json'
# CLIP's mean colour, BGR
fill = (104.09373615, 116.7460125, 122.7709383)

load_transforms = [dict(type='LoadReferringImage'), dict(type='LoadConfidenceLabel')]
pack_transforms = [dict(type='PackSegInputs', meta_keys=('img_path', 'img_shape'))]
dataset = dict(
    type='ConfidenceLabelDataset',
    data_root=data_root,
    ann_file=label_file,
    data_prefix=dict(img_path='train2014/'),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteReferringSampler', shuffle=True),
    dataset=dict(
        **dataset,
        pipeline=[
            *load_transforms,
            dict(type='AffinityCrop', size=image_size[0], fill=fill),
            *pack_transforms,
        ],
    ),
)
mean_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        **dataset,
        indices=200,
        pipeline=[
            *load_transforms,
            dict(type='AffinityCrop', size=384, random=False, fill=fill),
            *pack_transforms,
        ],
    ),
)
custom_hooks = [dict(type='MeanDisplacementHook', dataloader=mean_dataloader)]

# So short a training can do with the published rates, with momentum.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={'displacement': dict(lr_mult=10)}),
)
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=max_iters, by_epoch=False)
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters)
# There is nothing to validate with, as the labels are made: the masks are looked at.
default_hooks = dict(
    _delete_=True,
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=max_iters),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    iteration_seed=dict(type='IterationSeedHook'),
)
log_processor = dict(by_epoch=False)
