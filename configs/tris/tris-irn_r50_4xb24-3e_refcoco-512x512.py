# TRIS's affinity network (IRN): learns from confidence labels of response maps where objects end.
# tools/pseudo_labels/make_confidence_labels.py writes label_file.
#
# The published code hands the weight decay to SGD as its momentum, so that it trains without
# momentum. Here it has one, with a tenth of the learning rates, so that steps are as long. The mean
# displacement is that of the images; published, padding counts, too. `tris-irn-published_*`
# trains as published.
_base_ = ['../_base_/models/irn_r50.py', '../_base_/default_runtime.py']

label_file = 'data/pseudo_masks/refcoco_unc_train/confidence_labels.json'
img_path = 'data/coco/train2014/'
image_size = (512, 512)

load_transforms = [dict(type='LoadReferringImage'), dict(type='LoadConfidenceLabel')]
pack_transforms = [dict(type='PackSegInputs', meta_keys=('img_path', 'img_shape'))]
train_dataloader = dict(
    batch_size=24,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='ReferringSampler', shuffle=True),
    dataset=dict(
        type='ConfidenceLabelDataset',
        ann_file=label_file,
        data_prefix=dict(img_path=img_path),
        pipeline=[
            *load_transforms,
            dict(type='AffinityCrop', size=image_size[0]),
            *pack_transforms,
        ],
    ),
)
# The whole images, for the mean displacement.
mean_dataloader = dict(
    batch_size=24,
    num_workers=8,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='ConfidenceLabelDataset',
        ann_file=label_file,
        data_prefix=dict(img_path=img_path),
        pipeline=[
            *load_transforms,
            dict(type='AffinityCrop', size=image_size[0], random=False),
            *pack_transforms,
        ],
    ),
)
custom_hooks = [dict(type='MeanDisplacementHook', dataloader=mean_dataloader)]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={'displacement': dict(lr_mult=10)}),
)
param_scheduler = [
    dict(
        type='PolyLR',
        power=0.9,
        eta_min=0.0,
        begin=0,
        end=3,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3)
auto_scale_lr = dict(enable=False, base_batch_size=96)
# There is nothing to validate with: the labels are the network's own. The masks are looked at.
default_hooks = dict(
    _delete_=True,
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    iteration_seed=dict(type='IterationSeedHook'),
)
