_base_ = [
    '../_base_/models/cris_r101.py',
    '../_base_/datasets/refcocog-umd.py',
    '../_base_/schedules/cris_50e.py',
    '../_base_/default_runtime.py',
]

# Tokens of an expression, start and end included.
model = dict(text_encoder=dict(context_length=22))
