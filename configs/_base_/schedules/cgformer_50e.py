# CGFormer's schedule: AdamW with AMSGrad, 64 images per step over all GPUs (8 x 8), 50 epochs, the
# learning rate falls to 0 by iteration.
sync_bn = 'torch'  # all GPUs normalise by common statistics
optim_wrapper = dict(
    type='AmpOptimWrapper',
    # Everything decays, norms and biases included.
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4, amsgrad=True),
    # What was pretrained learns at half of the rate. The longer key wins, so fusions and gates do
    # not.
    paramwise_cfg=dict(
        custom_keys={
            'backbone': dict(lr_mult=0.5),
            'text_encoder': dict(lr_mult=0.5),
            'backbone.fusions': dict(lr_mult=1.0),
            'backbone.gates': dict(lr_mult=1.0),
        }
    ),
)
param_scheduler = [
    dict(
        type='PolyLR',
        power=0.9,
        eta_min=0.0,
        begin=0,
        end=50,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=50, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=64)
