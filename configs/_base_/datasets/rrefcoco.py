# R-RefCOCO: RefCOCO with expressions that are false of the image. A network without a no-target
# output rejects one by an empty mask. To keep the best checkpoint:
# default_hooks = dict(checkpoint=dict(save_best='rIoU')).
_base_ = './refcoco.py'
dataset_type = 'RRefCOCODataset'
ann_file = 'rrefcoco/instances.json'
split_file = 'rrefcoco/refs(unc).p'
bank_name = 'rrefcoco_unc_raw'

# The field that the published reader reads: expressions as typed.
text_key = 'raw'
files = dict(type=dataset_type, ann_file=ann_file, split_file=split_file, text_key=text_key)
train_dataloader = dict(dataset=files)
val_dataloader = dict(dataset=files)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='RobustReferringIoU')
test_evaluator = val_evaluator
