# R-RefCOCOg: see rrefcoco.py.
_base_ = './rrefcoco.py'
dataset_type = 'RRefCOCODataset'
ann_file = 'rrefcocog/instances.json'
split_file = 'rrefcocog/refs(umd).p'
bank_name = 'rrefcocog_umd_raw'

files = dict(type=dataset_type, ann_file=ann_file, split_file=split_file)
train_dataloader = dict(dataset=files)
val_dataloader = dict(dataset=files)
test_dataloader = val_dataloader
