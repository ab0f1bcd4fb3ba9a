# RefCOCOg (umd) from Parquet: see refcoco-parquet.py.
_base_ = './refcoco-parquet.py'
ann_file = 'jxu124/refcocog'
dataset = 'refcocog'
bank_name = 'refcocog_umd'

files = dict(ann_file=ann_file, dataset=dataset)
train_dataloader = dict(dataset=files)
val_dataloader = dict(dataset=files)
test_dataloader = val_dataloader
