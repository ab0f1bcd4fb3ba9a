# gRefCOCO: expressions of one object, several or none; splits train, val, testA, testB.
_base_ = './refcoco-448x448.py'
dataset_type = 'GRefCOCODataset'
ann_file = 'grefcoco/instances.json'
split_file = 'grefcoco/grefs(unc).json'
bank_name = 'grefcoco_unc'

files = dict(type=dataset_type, ann_file=ann_file, split_file=split_file)
# As published, each expression is a sample of its own.
train_dataloader = dict(dataset=dict(**files, group_by='expression'))
val_dataloader = dict(dataset=files)
test_dataloader = val_dataloader
# A network without a no-target output predicts "no target" by a mask of fewer than 50 pixels. To
# keep the best checkpoint: default_hooks = dict(checkpoint=dict(save_best='gIoU')).
val_evaluator = dict(_delete_=True, type='GeneralizedReferringIoU')
test_evaluator = val_evaluator
