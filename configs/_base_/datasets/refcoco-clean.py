# RefCOCO (unc), whose val is measured on its own masks and, where RefCOCO-M has some, on those:
# `hf download moondream/refcoco-m --repo-type dataset`.
_base_ = './refcoco.py'

val_dataloader = dict(dataset=dict(gt_overlay='moondream/refcoco-m'))
test_dataloader = val_dataloader
val_evaluator = dict(type='CleanReferringIoU')
test_evaluator = val_evaluator
