# A small ReLA on a handful of photographs: does it learn them by heart? Evaluated on its own
# training expressions.
_base_ = [
    '../_base_/models/rela_refshapes-clip.py',
    '../_base_/datasets/refphotos.py',
    '../_base_/schedules/scratch_300i.py',
]
# CLIP is pretrained.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'backbone.backbone': dict(lr_mult=0.3)}))
