_base_ = ['./lavt_swin-tiny-w7_1xb4-300i_refphotos-192x192.py', '../_base_/nemo.py']

bank = dict(
    model='RefShapes-CLIP',
    pretrained='refshapes',
    path=f'{_base_.data_root}banks/{_base_.bank_name}_train_refshapes-clip.safetensors',
)
nemo = dict(
    _base_.nemo, mined_prob=0.3, bank=bank, size=_base_.image_size, plain=_base_.load_transforms
)
train_dataloader = dict(
    dataset=dict(pipeline=[*_base_.sample_transforms, nemo, *_base_.pack_transforms])
)
