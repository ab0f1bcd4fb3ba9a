# RefCOCOg (umd) as ReLA reads it and measures it: like gRefCOCO.
_base_ = './grefcoco-480x480.py'
ann_file = 'refcocog/instances.json'
split_file = 'refcocog/refs(umd).p'
bank_name = 'refcocog_umd_raw'

files = dict(type='RefCOCODataset', ann_file=ann_file, split_file=split_file)
train_dataloader = dict(dataset=files)
val_dataloader = dict(dataset=files)
test_dataloader = val_dataloader
