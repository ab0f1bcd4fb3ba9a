# From scratch, for two CPU cores: does the network learn at all? AdamW with a short warm-up,
# bfloat16, channels last.
_base_ = '../default_runtime.py'
max_iters = 300

optim_wrapper = dict(
    type='BFloat16OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-4, weight_decay=0.01, fused=True),
    clip_grad=dict(max_norm=1.0),
    # Text encoders are pretrained, or move all logits at once.
    paramwise_cfg=dict(custom_keys={'text_encoder': dict(lr_mult=0.1)}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=max_iters, eta_min_ratio=0.02),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop', fp16=True)
test_cfg = dict(type='TestLoop', fp16=True)
default_hooks = dict(
    channels_last=dict(type='ChannelsLastHook'),
    checkpoint=dict(by_epoch=False, interval=max_iters),
    logger=dict(interval=10),
)
log_processor = dict(by_epoch=False)
