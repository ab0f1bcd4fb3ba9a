# RefCOCO as CGFormer reads it: stretched to 480x480 as LAVT does, but cleaned expressions.
_base_ = './refcoco-480x480.py'
text_key = 'sent'
bank_name = 'refcoco_unc'  # the expressions of CRIS, and so its bank

train_dataloader = dict(dataset=dict(text_key=text_key))
val_dataloader = dict(dataset=dict(text_key=text_key))
test_dataloader = val_dataloader
# As published: an IoU must exceed a threshold, and an empty union counts 0.
val_evaluator = dict(tie='>', empty_union=0.0)
test_evaluator = val_evaluator
