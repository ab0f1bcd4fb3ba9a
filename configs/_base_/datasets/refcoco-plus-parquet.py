# RefCOCO+ (unc) from Parquet: see refcoco-parquet.py.
_base_ = './refcoco-parquet.py'
ann_file = 'jxu124/refcocoplus'
dataset = 'refcoco+'
bank_name = 'refcoco-plus_unc'

files = dict(ann_file=ann_file, dataset=dataset)
train_dataloader = dict(dataset=files)
val_dataloader = dict(dataset=files)
test_dataloader = val_dataloader
