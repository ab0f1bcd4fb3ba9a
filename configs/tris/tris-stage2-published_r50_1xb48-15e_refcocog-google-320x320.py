# As published, also where that is a slip (README.md): a long expression loses its end token, the
# learning rate stays within 0.1 % of its first value, negative maps become full masks.
_base_ = './tris-stage2_r50_1xb48-15e_refcocog-google-320x320.py'
model = dict(
    text_encoder=dict(keep_end=False),
    test_cfg=dict(protocol=dict(flip_negative=True)),
)
param_scheduler = []
