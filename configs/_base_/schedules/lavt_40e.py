# LAVT's schedule: AdamW, 32 images per step over all GPUs (4 x 8), 40 epochs, the learning rate
# falls to 0 by iteration.
sync_bn = 'torch'  # all GPUs normalise by common statistics
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-5, weight_decay=0.01),
    # Everything decays, biases and the head's batch normalisation included, except these parts of
    # the backbone. The longer key wins, so 'text_encoder' and 'decode_head' switch the three off
    # there.
    paramwise_cfg=dict(
        custom_keys={
            'norm': dict(decay_mult=0.0),
            'absolute_pos_embed': dict(decay_mult=0.0),
            'relative_position_bias_table': dict(decay_mult=0.0),
            'text_encoder': dict(decay_mult=1.0),
            'decode_head': dict(decay_mult=1.0),
        }
    ),
)
param_scheduler = [
    dict(
        type='PolyLR',
        power=0.9,
        eta_min=0.0,
        begin=0,
        end=40,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=40, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=32)
