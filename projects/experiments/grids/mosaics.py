# How often, with which grid, and until when: NeMo has a share of 0.3, fixed lines and no end.
_base_ = './comparison.py'
question = 'How many mosaics, of which kind, and should the last epochs be without?'
nemo = _base_.rows['NeMo']
mosaic = 'train_dataloader.dataset.pipeline.1.'
share = f'{mosaic}schedule.mined'
closing = dict(_delete_=True, type='StepRamp', milestones=(20,), values=(0.3, 0.0))
rows = {
    '_delete_': True,
    'none': _base_.rows['none'],
    'NeMo': nemo,
    'share 0.1': dict(nemo, options={**nemo['options'], share: 0.1}),
    'share 0.5': dict(nemo, options={**nemo['options'], share: 0.5}),
    'none in the last fifth': dict(nemo, options={**nemo['options'], share: closing}),
    'moved lines': dict(nemo, options={**nemo['options'], f'{mosaic}grid.jitter': 0.5}),
}
del nemo, mosaic, share, closing
cut = ()
