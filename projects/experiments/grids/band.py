# The paper's claim on the band: best in the middle, neither ambiguous nor trivial. A cross through the demo's setting.
_base_ = './comparison.py'
question = (
    'Is a band in the middle best (tau x top_k), neither ambiguous nor trivial? NeMo is tau=0.97, top_k=60; the rows '
    'below it change one of the two.'
)
nemo = 'cris_refshapes-clip_nemo_1xb16-4e_refshapes-plus-256x256'
band = 'train_dataloader.dataset.pipeline.1.band.'
rows = {
    '_delete_': True,
    'none': dict(config='cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256'),
    'NeMo': dict(config=nemo),  # tau=0.97, top_k=60
    'tau=0.8': dict(config=nemo, options={f'{band}tau': 0.8}),
    'tau=1.05': dict(config=nemo, options={f'{band}tau': 1.05}),
    'top_k=10': dict(config=nemo, options={f'{band}top_k': 10}),
    'top_k=500': dict(config=nemo, options={f'{band}top_k': 500}),
}
del nemo, band
by = ('distractors',)
cut = (
    'the corners of the tau x top_k grid: a cross through tau=0.97, top_k=60 is run',
    'the other variants of RefShapes; margins, ranks and the image-to-image threshold',
)
