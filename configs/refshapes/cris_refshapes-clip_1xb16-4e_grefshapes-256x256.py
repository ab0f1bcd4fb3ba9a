# The demo's network on RefShapes with expressions of one object, several or none.
_base_ = './cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256.py'
ann_file = 'grefshapes/instances.json'
split_file = 'grefshapes/grefs(unc).json'
bank_name = 'grefshapes'

# Expressions such as "all rings except the ..." are long. The tokenizer cuts number words into
# pieces, since no other variant has them.
model = dict(text_encoder=dict(context_length=24))
files = dict(type='GRefCOCODataset', ann_file=ann_file, split_file=split_file)
train_dataloader = dict(dataset=files)
val_dataloader = dict(dataset=files)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='GeneralizedReferringIoU')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='gIoU'))
