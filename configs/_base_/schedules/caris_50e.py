# CARIS's schedule: AdamW, 16 images per step over all GPUs (2 x 8), 50 epochs. The learning rate
# rises in 1500 iterations and falls to 0 by iteration.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    # The rate of Swin and BERT. Prompts and decoder learn ten times as fast, at 1e-4.
    optimizer=dict(type='AdamW', lr=1e-5, weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
    # Everything decays, biases and group norms included, except layer norms, embeddings, bias
    # tables and prompts. Of the keys that a name contains the longest counts.
    paramwise_cfg=dict(
        custom_keys={
            # Swin's and BERT's
            'norm': dict(decay_mult=0.0),
            'relative_position_bias_table': dict(decay_mult=0.0),
            'LayerNorm': dict(decay_mult=0.0),
            'bert.embeddings': dict(decay_mult=0.0),
            'neck.': dict(lr_mult=10.0),
            'neck.prompts.norm': dict(lr_mult=10.0, decay_mult=0.0),
            'neck.prompts.learned': dict(lr_mult=10.0, decay_mult=0.0),
            'decode_head': dict(lr_mult=10.0),
            'decode_head.prompts': dict(lr_mult=10.0, decay_mult=0.0),
            'decode_head.word_norm': dict(lr_mult=10.0, decay_mult=0.0),
            '.pixel_norm.': dict(lr_mult=10.0, decay_mult=0.0),
            'pixel_layer.attention_norm.': dict(lr_mult=10.0, decay_mult=0.0),
            'pixel_layer.ffn_norm.': dict(lr_mult=10.0, decay_mult=0.0),
            'token_norms.': dict(lr_mult=10.0, decay_mult=0.0),
        }
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1501),
    dict(
        type='PolyLR',
        power=0.9,
        eta_min=0.0,
        begin=0,
        end=50,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
# As published: about every ten epochs, and after each of the last 16.
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=50, val_interval=10, dynamic_intervals=[(36, 1)]
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=16)
