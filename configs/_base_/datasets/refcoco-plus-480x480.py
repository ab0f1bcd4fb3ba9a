_base_ = ['./refcoco-plus.py', '../stretch-480.py']
image_size = _base_.stretched_size
load_transforms = _base_.stretched_load
train_pipeline = [*_base_.sample_transforms, *load_transforms, *_base_.pack_transforms]
test_pipeline = _base_.stretched_test
# Expressions as typed; they need a bank of their own.
text_key = 'raw'
bank_name = f'{_base_.bank_name}_raw'

train_dataloader = dict(dataset=dict(text_key=text_key, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(text_key=text_key, pipeline=test_pipeline))
test_dataloader = val_dataloader
# As published: an IoU of exactly the threshold counts, and an empty union counts 0.
val_evaluator = dict(tie='>=', empty_union=0.0)
test_evaluator = val_evaluator
