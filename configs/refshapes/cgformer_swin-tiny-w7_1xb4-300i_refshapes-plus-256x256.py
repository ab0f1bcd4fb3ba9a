_base_ = [
    '../_base_/models/cgformer_swin-tiny-w7_minilm.py',
    '../_base_/datasets/refshapes-plus.py',
    '../_base_/schedules/scratch_300i.py',
]
model = dict(decode_head=dict(image_size=_base_.image_size))
train_dataloader = dict(batch_size=4, sampler=dict(type='InfiniteReferringSampler'))
