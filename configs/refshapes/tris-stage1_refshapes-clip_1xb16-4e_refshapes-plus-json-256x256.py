# TRIS's first stage on data in the JSON form (docs/own_data.md): no mask is read. The small CLIP of
# the package is encoder, initial weights and the frozen CLIP that compares masked images with
# expressions.
_base_ = [
    '../_base_/models/tris-stage1_refshapes-clip.py',
    '../_base_/datasets/refshapes-plus-json_boxes.py',
    '../_base_/schedules/refshapes.py',
    '../_base_/default_runtime.py',
]

# What tools/pseudo_labels/make_response_maps.py keeps of a reference.
response_maps = dict(split='train', selection=dict(type='PRMS', **_base_.clip))
model = dict(
    aux_losses=[dict(type='CLIPCalibrationLoss', **_base_.clip)],
    # A map has 8 x 8 values. Objects are small, and what is above 0 is twice as large as they are;
    # above 0.3 confidence labels call a pixel foreground, too.
    test_cfg=dict(protocol=dict(threshold=0.3)),
)
text_pipeline = [
    *_base_.sample_transforms,
    dict(type='SampleNegativeExpressions', num=3),
    dict(type='LoadReferringImage'),
    _base_.resize,
    dict(type='PackReferringInputs', extra_keys=['negative_expressions']),
]
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=text_pipeline))
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={'backbone': dict(lr_mult=0.1), 'text_encoder': dict(lr_mult=0.1)}
    ),
)
param_scheduler = [dict(_base_.warmup, end=30), _base_.decay]
default_hooks = dict(channels_last=dict(type='ChannelsLastHook'), checkpoint=dict(save_best='mIoU'))
