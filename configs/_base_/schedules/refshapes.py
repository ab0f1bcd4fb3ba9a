# A few epochs of a small network on RefShapes, for two CPU cores.
max_epochs = 4
warmup = dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100)
decay = dict(
    type='CosineAnnealingLR',
    by_epoch=True,
    convert_to_iter_based=True,
    begin=0,
    end=max_epochs,
    eta_min_ratio=0.02,
)

optim_wrapper = dict(
    type='BFloat16OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01, fused=True),
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(
        custom_keys={'backbone': dict(lr_mult=0.3), 'text_encoder': dict(lr_mult=0.3)}
    ),
)
param_scheduler = [warmup, decay]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop', fp16=True)
test_cfg = dict(type='TestLoop', fp16=True)
