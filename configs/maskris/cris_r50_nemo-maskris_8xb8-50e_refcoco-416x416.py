_base_ = ['../cris/cris_r50_nemo_8xb8-50e_refcoco-416x416.py', '../_base_/maskris.py']

model = dict(train_cfg=dict(masked=_base_.masked))
