_base_ = ['./cris_refshapes-clip_nemo_1xb16-4e_refshapes-plus-256x256.py', '../_base_/maskris.py']

model = dict(train_cfg=dict(masked=_base_.masked))
