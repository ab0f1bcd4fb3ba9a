# The paper's claim on the band: best in the middle, neither ambiguous nor trivial.
_base_ = './comparison.py'
question = (
    'Is a band in the middle best (tau x top_k), neither ambiguous nor trivial? NeMo is tau=0.8, '
    'top_k=10 of 325 images; the rows below it change one of the two.'
)
nemo = _base_.rows['NeMo']
band = 'train_dataloader.dataset.pipeline.1.band.'
rows = {
    '_delete_': True,
    'none': _base_.rows['none'],
    'NeMo': nemo,
    'tau=0.97': dict(nemo, options={**nemo['options'], f'{band}tau': 0.97}),
    'top_k=60': dict(nemo, options={**nemo['options'], f'{band}top_k': 60}),
}
del nemo, band
by = ('distractors',)
cut = ('tau above 1', 'the corners of tau x top_k')
