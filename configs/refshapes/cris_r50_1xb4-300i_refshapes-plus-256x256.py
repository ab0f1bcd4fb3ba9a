_base_ = [
    '../_base_/models/cris_r50_scratch.py',
    '../_base_/datasets/refshapes-plus.py',
    '../_base_/schedules/scratch_300i.py',
]
train_dataloader = dict(batch_size=4, sampler=dict(type='InfiniteReferringSampler'))
optim_wrapper = dict(optimizer=dict(lr=1e-4))
