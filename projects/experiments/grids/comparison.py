# The paper's comparison of augmentations, on RefShapes with the demo's CRIS. A run is as long as the demo's (4 epochs).
data = 'python tools/dataset_converters/make_refshapes.py data/refshapes --variants refshapes+ --train 2000 --val 300 --testA 300 --testB 300'
question = 'Which augmentation helps: random mosaic, CutMix, MixGen or NeMo?'
name = 'cris_refshapes-clip{}_1xb16-4e_refshapes-plus-256x256'
rows = {
    'none': dict(config=name.format('')),
    'random mosaic': dict(config=name.format('_mosaic')),
    'CutMix': dict(config=name.format('_cutmix')),
    'MixGen': dict(config=name.format('_mixgen')),
    'NeMo': dict(config=name.format('_nemo')),
}
del name
baseline = 'none'
seeds = (0, 1, 2)
splits = ('val', 'testA', 'testB')
by = ('distractors',)
iterations = 1250
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=iterations, eta_min_ratio=0.02),
]
# band.py and distractors.py share these runs: 27 in all. One takes about 12 minutes of one core (OMP_NUM_THREADS=1).
runs = 'refshapes-plus-256'
cut = (
    'the other variants of RefShapes; refshapes+, which places no referent by words, is taken for the hardest, unmeasured',
    'more than three seeds, longer training and larger networks',
    'copy-paste, which is not in the paper',
)
