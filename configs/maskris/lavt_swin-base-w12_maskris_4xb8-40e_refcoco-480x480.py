_base_ = ['../lavt/lavt_swin-base-w12_4xb8-40e_refcoco-480x480.py', '../_base_/maskris.py']

model = dict(train_cfg=dict(masked=_base_.masked))
