_base_ = [
    '../_base_/models/cris_r50.py',
    '../_base_/datasets/ref-zom.py',
    '../_base_/schedules/cris_50e.py',
    '../_base_/default_runtime.py',
]

# As gRefCOCO's: what names several objects is long.
model = dict(text_encoder=dict(context_length=22))
