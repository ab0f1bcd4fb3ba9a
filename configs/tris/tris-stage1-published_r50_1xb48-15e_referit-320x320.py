# As published, also where that is a slip (README.md): a long expression loses its end token.
_base_ = './tris-stage1_r50_1xb48-15e_referit-320x320.py'
model = dict(
    text_encoder=dict(keep_end=False),
    aux_losses=[dict(_base_.calibration, max_tokens=20)],
)
response_maps = dict(selection=dict(max_tokens=20))
