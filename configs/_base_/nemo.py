# NeMo for any method: a config adds this base, names its bank and puts `nemo` between the parts of its pipeline.
# Beside it lie variants to be added in its place: nemo_grids.py, nemo_i2i.py, nemo_curriculum.py, nemo_blur.py.
bank = dict(model='ViT-B-32', pretrained='openai', keep=1000)
nemo = dict(
    type='NeMoMosaic',
    start_epoch=0,
    random_prob=0.0,
    mined_prob=0.5,
    tau=0.95,
    tau_mode='relative',
    top_k=100,
    grid=(2, 2),
)
custom_hooks = [
    # Mines the bank before training where it is missing, and checks it where it is not.
    dict(type='NegativeMiningHook', batch_size=64, num_workers=4),
    # Logs which share of the samples were mosaics, and where the band was too small.
    dict(type='MosaicStatisticsHook'),
]
