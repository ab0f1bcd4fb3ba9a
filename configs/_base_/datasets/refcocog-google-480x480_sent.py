_base_ = './refcoco-480x480_sent.py'

# RefCOCOg (google): long expressions; splits train and val.
ann_file = 'refcocog/instances.json'
split_file = 'refcocog/refs(google).p'
bank_name = 'refcocog_google'

train_dataloader = dict(dataset=dict(ann_file=ann_file, split_file=split_file))
val_dataloader = dict(dataset=dict(ann_file=ann_file, split_file=split_file))
test_dataloader = val_dataloader
