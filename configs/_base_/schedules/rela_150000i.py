# ReLA's schedule: AdamW, 48 images per step over all GPUs (8 x 6), 150,000 iterations, a tenth of
# the learning rate after 110,000 and again after 140,000.
_base_ = '../default_runtime.py'

optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-5, weight_decay=0.05),
    # Norms, tables of embeddings and of position biases do not decay. BERT decays altogether, and
    # so does the neck's level_embed, which is no nn.Embedding in the published code.
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={
            'relative_position_bias_table': dict(decay_mult=0.0),
            'decode_head.query_feat': dict(decay_mult=0.0),
            'decode_head.query_embed': dict(decay_mult=0.0),
            'decode_head.level_embed': dict(decay_mult=0.0),
            'text_encoder': dict(decay_mult=1.0),
        },
    ),
    clip_grad=dict(max_norm=0.01),
)
param_scheduler = [dict(type='MultiStepLR', by_epoch=False, milestones=[110000, 140000], gamma=0.1)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=150000, val_interval=5000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=48)
