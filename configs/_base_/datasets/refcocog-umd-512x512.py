_base_ = './refcoco-512x512.py'

# RefCOCOg (umd): long expressions; splits train, val, test.
ann_file = 'refcocog/instances.json'
split_file = 'refcocog/refs(umd).p'
bank_name = 'refcocog_umd'

train_dataloader = dict(dataset=dict(ann_file=ann_file, split_file=split_file))
val_dataloader = dict(dataset=dict(ann_file=ann_file, split_file=split_file))
test_dataloader = val_dataloader
