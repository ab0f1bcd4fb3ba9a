_base_ = './refcoco-512x512.py'

# RefCOCO+ (unc): no words of location.
ann_file = 'refcoco+/instances.json'
split_file = 'refcoco+/refs(unc).p'
bank_name = 'refcoco-plus_unc'

train_dataloader = dict(dataset=dict(ann_file=ann_file, split_file=split_file))
val_dataloader = dict(dataset=dict(ann_file=ann_file, split_file=split_file))
test_dataloader = val_dataloader
