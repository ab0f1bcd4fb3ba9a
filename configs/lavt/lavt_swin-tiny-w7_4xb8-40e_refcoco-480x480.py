_base_ = [
    '../_base_/models/lavt_swin-tiny-w7.py',
    '../_base_/datasets/refcoco-480x480.py',
    '../_base_/schedules/lavt_40e.py',
    '../_base_/default_runtime.py',
]

# As published: an IoU of exactly the threshold counts, and an empty union counts 0.
val_evaluator = dict(tie='>=', empty_union=0.0)
test_evaluator = val_evaluator
