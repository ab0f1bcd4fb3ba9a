_base_ = [
    '../_base_/models/cris_r50.py',
    '../_base_/datasets/refcoco-joint.py',
    '../_base_/schedules/cris_50e.py',
    '../_base_/default_runtime.py',
]
model = dict(text_encoder=dict(context_length=22))  # RefCOCOg's expressions are longer

# As published: an IoU must exceed a threshold, and an empty union counts 0.
val_evaluator = dict(tie='>', empty_union=0.0)
test_evaluator = val_evaluator
