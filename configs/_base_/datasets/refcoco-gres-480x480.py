# RefCOCO (unc) as ReLA reads it and measures it: like gRefCOCO.
_base_ = './grefcoco-480x480.py'
ann_file = 'refcoco/instances.json'
split_file = 'refcoco/refs(unc).p'
bank_name = 'refcoco_unc_raw'

files = dict(type='RefCOCODataset', ann_file=ann_file, split_file=split_file)
train_dataloader = dict(dataset=files)
val_dataloader = dict(dataset=files)
test_dataloader = val_dataloader
