# R-RefCOCO+: see rrefcoco.py.
_base_ = './rrefcoco.py'
dataset_type = 'RRefCOCODataset'
ann_file = 'rrefcoco+/instances.json'
split_file = 'rrefcoco+/refs(unc).p'
bank_name = 'rrefcoco-plus_unc_raw'

files = dict(type=dataset_type, ann_file=ann_file, split_file=split_file)
train_dataloader = dict(dataset=files)
val_dataloader = dict(dataset=files)
test_dataloader = val_dataloader
