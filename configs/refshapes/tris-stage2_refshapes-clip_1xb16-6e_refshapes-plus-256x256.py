# TRIS's second stage in small, for two CPU cores: it learns the masks that were made of the first
# stage's response maps, and is tested with the annotated ones.
_base_ = [
    '../_base_/models/tris-stage2_refshapes-clip.py',
    '../_base_/datasets/refshapes-plus_boxes.py',
    '../_base_/default_runtime.py',
]
max_epochs = 6
pseudo_masks = f'pseudo_masks/{_base_.bank_name}_train/instances.json'

train_dataloader = dict(dataset=dict(ann_file=pseudo_masks))
optim_wrapper = dict(
    type='BFloat16OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01, fused=True),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(
        custom_keys={'backbone': dict(lr_mult=0.3), 'text_encoder': dict(lr_mult=0.3)}
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        convert_to_iter_based=True,
        begin=0,
        end=max_epochs,
        eta_min_ratio=0.02,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop', fp16=True)
test_cfg = dict(type='TestLoop', fp16=True)
default_hooks = dict(channels_last=dict(type='ChannelsLastHook'), checkpoint=dict(save_best='mIoU'))
