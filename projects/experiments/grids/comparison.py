# Augmentations side by side, with the demo's CRIS on few images and for many epochs.
data = (
    'python tools/dataset_converters/make_refshapes.py data/refshapes-few/normal '
    '--variants refshapes+ --train 325 --val 300 --testA 10 --testB 300'
)
question = 'Which augmentation helps: a random mosaic, CutMix, copy-paste, NeMo or masked training?'
data_root = 'data/refshapes-few/normal/'
name = 'cris_refshapes-clip{}_1xb16-4e_refshapes-plus-256x256'
bank = {'train_dataloader.dataset.pipeline.1.bank.path': f'{data_root}banks/bank.safetensors'}
rows = {
    'none': dict(config=name.format('')),
    'random mosaic': dict(config=name.format('_mosaic')),
    'NeMo': dict(config=name.format('_nemo'), options=bank),
    'MaskRIS': dict(config=name.format('_maskris')),
    'NeMo + MaskRIS': dict(config=name.format('_nemo-maskris'), options=bank),
    'CutMix': dict(config=name.format('_cutmix')),
    'copy-paste': dict(config=name.format('_copypaste')),
}
baseline = 'none'
options = {f'{loader}_dataloader.dataset.data_root': data_root for loader in ('train', 'test')}
del name, bank, data_root
seeds = (0, 1, 2)
splits = ('val', 'testB')
by = ('distractors', 'area', 'size_word')
# 809 references, 16 in a step: 25 epochs.
iterations = 1250
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=iterations, eta_min_ratio=0.02),
]
# mining.py, mosaics.py and band.py share these runs.
runs = 'normal'
cut = (
    'MixGen, which is clearly harmful in the paper and on version 2 of RefShapes',
    'inputs of 384x384, which cost 2.25 times as much',
)
