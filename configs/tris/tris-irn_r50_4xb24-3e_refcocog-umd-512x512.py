_base_ = './tris-irn_r50_4xb24-3e_refcoco-512x512.py'

label_file = 'data/pseudo_masks/refcocog_umd_train/confidence_labels.json'
labels = dict(ann_file=label_file)
train_dataloader = dict(dataset=labels)
mean_dataloader = dict(
    _base_.mean_dataloader, dataset=dict(_base_.mean_dataloader.dataset, **labels)
)
custom_hooks = [dict(type='MeanDisplacementHook', dataloader=mean_dataloader)]
