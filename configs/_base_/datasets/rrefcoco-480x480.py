# R-RefCOCO as ReLA reads gRefCOCO.
_base_ = './grefcoco-480x480.py'
ann_file = 'rrefcoco/instances.json'
split_file = 'rrefcoco/refs(unc).p'
bank_name = 'rrefcoco_unc_raw'

files = dict(type='RRefCOCODataset', ann_file=ann_file, split_file=split_file)
train_dataloader = dict(dataset=files)
val_dataloader = dict(dataset=files)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='RobustReferringIoU')
test_evaluator = val_evaluator
