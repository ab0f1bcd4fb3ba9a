_base_ = [
    '../_base_/models/caris_swin-tiny-w7_minilm.py',
    '../_base_/datasets/refshapes-plus.py',
    '../_base_/schedules/scratch_300i.py',
]
train_dataloader = dict(batch_size=4, sampler=dict(type='InfiniteReferringSampler'))
