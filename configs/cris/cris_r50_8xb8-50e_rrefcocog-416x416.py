_base_ = [
    '../_base_/models/cris_r50.py',
    '../_base_/datasets/rrefcocog.py',
    '../_base_/schedules/cris_50e.py',
    '../_base_/default_runtime.py',
]

# Tokens of an expression, start and end included.
model = dict(text_encoder=dict(context_length=22))
default_hooks = dict(checkpoint=dict(save_best='rIoU'))
