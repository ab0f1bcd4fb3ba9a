# RefCOCO as LAVT reads it: expressions as typed, image and mask stretched to 480x480 by PIL (the
# image antialiased, the mask by nearest pixel). PIL resizes one mask only: a training sample of
# several expressions needs backend='cv2'.
_base_ = './refcoco.py'
image_size = (480, 480)

resize = dict(type='Resize', scale=image_size[::-1], keep_ratio=False, backend='pillow')
load_transforms = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask'), resize]
train_pipeline = [*_base_.sample_transforms, *load_transforms, *_base_.pack_transforms]
# The mask stays at the size of the image: LAVT's test protocol stretches it.
test_pipeline = [
    dict(type='LoadReferringImage'),
    resize,
    dict(type='LoadReferentMask'),
    *_base_.pack_transforms,
]
# The expressions differ from those of other networks, so they need a bank of their own.
text_key = 'raw'
bank_name = f'{_base_.bank_name}_raw'

train_dataloader = dict(dataset=dict(text_key=text_key, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(text_key=text_key, pipeline=test_pipeline))
test_dataloader = val_dataloader
# As published: an IoU of exactly the threshold counts, and an empty union counts 0.
val_evaluator = dict(tie='>=', empty_union=0.0)
test_evaluator = val_evaluator
