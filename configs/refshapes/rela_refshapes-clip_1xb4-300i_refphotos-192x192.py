# A small ReLA on a handful of photographs: does it learn them by heart? Evaluated on its own
# training expressions.
_base_ = [
    '../_base_/models/rela_refshapes-clip.py',
    '../_base_/datasets/refphotos.py',
    '../_base_/schedules/scratch_300i.py',
]
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    # CLIP is pretrained.
    paramwise_cfg=dict(custom_keys={'backbone.backbone': dict(lr_mult=0.3)}),
)
