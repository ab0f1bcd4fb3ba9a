# The paper's claim on the band: best in the middle, neither ambiguous nor trivial.
_base_ = './comparison.py'
question = (
    'Is a band in the middle best (tau x top_k), neither ambiguous nor trivial? The rows below '
    'NeMo change one of the two.'
)
nemo = 'cris_refshapes-clip_nemo_1xb16-4e_refshapes-plus-256x256'
mosaic = 'train_dataloader.dataset.pipeline.1.'
bank = {f'{mosaic}bank.path': 'data/refshapes-few/normal/banks/bank.safetensors'}
rows = {
    '_delete_': True,
    'none': dict(config='cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256'),
    'NeMo': dict(config=nemo, options=bank),
    'tau=0.8': dict(config=nemo, options={**bank, f'{mosaic}band.tau': 0.8}),
    'tau=1.05': dict(config=nemo, options={**bank, f'{mosaic}band.tau': 1.05}),
}
del nemo, mosaic, bank
by = ('distractors',)
cut = ('other values of top_k, which could not be told apart on version 2', 'the corners')
