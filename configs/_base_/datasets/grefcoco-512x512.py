# gRefCOCO, stretched to 512x512: expressions of one object, several or none.
_base_ = './refcoco-512x512.py'
ann_file = 'grefcoco/instances.json'
split_file = 'grefcoco/grefs(unc).json'
bank_name = 'grefcoco_unc'

files = dict(type='GRefCOCODataset', ann_file=ann_file, split_file=split_file)
# As published, each expression is a sample of its own.
train_dataloader = dict(dataset=dict(**files, group_by='expression'))
val_dataloader = dict(dataset=files)
test_dataloader = val_dataloader
# A network without a no-target output predicts "no target" by a mask of fewer than 50 pixels.
val_evaluator = dict(_delete_=True, type='GeneralizedReferringIoU')
test_evaluator = val_evaluator
