# Augmentations side by side, with the demo's CRIS on few images and for many epochs.
data = (
    'python tools/dataset_converters/make_refshapes.py data/refshapes-few/normal '
    '--variants refshapes+ --train 325 --val 300 --testA 10 --testB 300'
)
question = 'Which augmentation helps: a random mosaic, CutMix, copy-paste, NeMo or masked training?'
folder = 'data/refshapes-few/normal/'
name = 'cris_refshapes-clip{}_1xb16-4e_refshapes-plus-256x256'
# The demo's top_k is for 2,000 images; this is the same share of 325.
nemo = {
    'train_dataloader.dataset.pipeline.1.bank.path': f'{folder}banks/bank.safetensors',
    'train_dataloader.dataset.pipeline.1.band.top_k': 10,
}
rows = {
    'none': dict(config=name.format('')),
    'random mosaic': dict(config=name.format('_mosaic')),
    'NeMo': dict(config=name.format('_nemo'), options=nemo),
    'MaskRIS': dict(config=name.format('_maskris')),
    'NeMo + MaskRIS': dict(config=name.format('_nemo-maskris'), options=nemo),
    'CutMix': dict(config=name.format('_cutmix')),
    'copy-paste': dict(config=name.format('_copypaste')),
}
baseline = 'none'
options = {
    'train_dataloader.dataset.data_root': folder,
    'test_dataloader.dataset.data_root': folder,
    'train_dataloader.dataset.indices': 800,  # references, the same number in all grids
}
del name, nemo, folder
seeds = (0, 1, 2)
splits = ('val', 'testB')
by = ('distractors', 'area', 'size_word')
# 16 of 800 references in a step: 25 epochs.
iterations = 1250
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=iterations, eta_min_ratio=0.02),
]
# mining.py, mosaics.py, band.py and overfitting.py share these runs.
runs = 'normal'
cut = (
    'MixGen, which is clearly harmful in the paper and on version 2 of RefShapes',
    'masked training as plain augmentation (one pass)',
    'inputs of 384x384, which cost 2.25 times as much',
    'gains by position words, which refshapes+ has none of',
)
