# TRIS's second stage: as the first, but CLIP's position tables learn at the full rate.
_base_ = './tris-stage1_15e.py'
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'positional_embedding': dict(lr_mult=1.0)}))
