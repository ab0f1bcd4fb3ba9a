# TRIS's second stage on data in the JSON form (docs/own_data.md): it learns the masks that were made
# of the first stage's response maps, and is tested with the annotated ones.
_base_ = [
    '../_base_/models/tris-stage2_refshapes-clip.py',
    '../_base_/datasets/refshapes-plus-json_boxes.py',
    '../_base_/schedules/refshapes.py',
    '../_base_/default_runtime.py',
]
max_epochs = 6
pseudo_masks = f'pseudo_masks/{_base_.bank_name}_train/instances.json'

train_dataloader = dict(dataset=dict(mask_file=pseudo_masks))
param_scheduler = [_base_.warmup, dict(_base_.decay, end=max_epochs)]
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(channels_last=dict(type='ChannelsLastHook'), checkpoint=dict(save_best='mIoU'))
