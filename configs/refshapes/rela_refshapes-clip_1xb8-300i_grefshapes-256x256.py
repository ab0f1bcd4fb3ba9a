# A small ReLA on RefShapes with expressions of one object, several or none.
_base_ = [
    '../_base_/models/rela_refshapes-clip.py',
    '../_base_/datasets/refshapes-plus.py',
    '../_base_/schedules/scratch_300i.py',
]
ann_file = 'grefshapes/instances.json'
split_file = 'grefshapes/grefs(unc).json'
bank_name = 'grefshapes'

files = dict(type='GRefCOCODataset', ann_file=ann_file, split_file=split_file)
train_dataloader = dict(
    batch_size=8,
    sampler=dict(type='InfiniteReferringSampler'),
    dataset=dict(**files, group_by='expression'),
)
val_dataloader = dict(dataset=files)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='GeneralizedReferringIoU')
test_evaluator = val_evaluator
# CLIP is pretrained.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'backbone.backbone': dict(lr_mult=0.3)}))
default_hooks = dict(checkpoint=dict(save_best='gIoU'))
