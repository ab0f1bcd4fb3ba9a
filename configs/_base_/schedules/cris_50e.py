# CRIS' schedule: Adam, 64 images per step over all GPUs (8 x 8), 50 epochs, a tenth of the learning
# rate after epoch 35.
sync_bn = 'torch'  # all GPUs normalise by common statistics
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='Adam', lr=1e-4, weight_decay=0.0),
    # CLIP's weights learn at a tenth of the rate, except its position tables.
    paramwise_cfg=dict(
        custom_keys={
            'positional_embedding': dict(lr_mult=1.0),
            'backbone': dict(lr_mult=0.1),
            'text_encoder': dict(lr_mult=0.1),
        }
    ),
)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[35], gamma=0.1)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=50, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=64)
