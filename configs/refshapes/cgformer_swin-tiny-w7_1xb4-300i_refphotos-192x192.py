_base_ = [
    '../_base_/models/cgformer_swin-tiny-w7_minilm.py',
    '../_base_/datasets/refphotos.py',
    '../_base_/schedules/scratch_300i.py',
]
model = dict(decode_head=dict(image_size=_base_.image_size))
