_base_ = [
    '../_base_/models/tris-stage1_r50.py',
    '../_base_/datasets/referit.py',
    '../_base_/schedules/tris-stage1_15e.py',
    '../_base_/default_runtime.py',
]

model = dict(aux_losses=[_base_.calibration])
train_dataloader = dict(dataset=dict(pipeline=_base_.text_pipeline))
default_hooks = dict(checkpoint=dict(save_best='mIoU'))
