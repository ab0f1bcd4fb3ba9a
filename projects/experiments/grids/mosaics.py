# How often, with which grid, and until when: NeMo has a share of 0.3, fixed lines and no end.
_base_ = './comparison.py'
question = 'How many mosaics, of which kind, and should the last epochs be without?'
nemo = 'cris_refshapes-clip_nemo_1xb16-4e_refshapes-plus-256x256'
mosaic = 'train_dataloader.dataset.pipeline.1.'
bank = {f'{mosaic}bank.path': 'data/refshapes-few/normal/banks/bank.safetensors'}
share = f'{mosaic}schedule.mined'
closing = dict(_delete_=True, type='StepRamp', milestones=(20,), values=(0.3, 0.0))
rows = {
    '_delete_': True,
    'none': dict(config='cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256'),
    'NeMo': dict(config=nemo, options=bank),
    'share 0.1': dict(config=nemo, options={**bank, share: 0.1}),
    'share 0.5': dict(config=nemo, options={**bank, share: 0.5}),
    'none in the last fifth': dict(config=nemo, options={**bank, share: closing}),
    'moved lines': dict(config=nemo, options={**bank, f'{mosaic}grid.jitter': 0.5}),
}
del nemo, mosaic, bank, share, closing
cut = ()
