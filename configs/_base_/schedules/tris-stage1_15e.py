# TRIS's first stage: AdamW, 48 images per step, 15 epochs, the learning rate falls to 0 by
# iteration. Several GPUs share the 48 images; sentences of all of them are compared.
sync_bn = 'torch'  # all GPUs normalise by common statistics
# A frozen CLIP compares masked images with expressions. A config puts it into its model.
calibration = dict(type='CLIPCalibrationLoss', model='ViT-B-32', pretrained='openai')
# What tools/pseudo_labels/make_response_maps.py keeps of a reference, by the same CLIP.
response_maps = dict(
    split='train', selection=dict(type='PRMS', model='ViT-B-32', pretrained='openai')
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-5, weight_decay=0.01),
    # CLIP's weights learn at a tenth of the rate. Everything decays.
    paramwise_cfg=dict(
        custom_keys={'backbone': dict(lr_mult=0.1), 'text_encoder': dict(lr_mult=0.1)}
    ),
)
param_scheduler = [
    dict(
        type='PolyLR',
        power=0.9,
        eta_min=0.0,
        begin=0,
        end=15,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=15, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=48)
