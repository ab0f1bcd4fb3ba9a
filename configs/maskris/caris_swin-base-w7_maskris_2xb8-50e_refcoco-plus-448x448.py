_base_ = ['../caris/caris_swin-base-w7_2xb8-50e_refcoco-plus-448x448.py', '../_base_/maskris.py']

model = dict(train_cfg=dict(masked=_base_.masked))
