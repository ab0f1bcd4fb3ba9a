_base_ = [
    '../_base_/models/gradcam_clip-vit-b-16.py',
    '../_base_/datasets/refcoco-plus-320x320.py',
    '../_base_/schedules/untrained.py',
    '../_base_/default_runtime.py',
]
train_dataloader = None
# What tools/pseudo_labels/make_response_maps.py keeps of a reference.
response_maps = dict(
    split='train', selection=dict(type='PRMS', model='ViT-B-32', pretrained='openai')
)
