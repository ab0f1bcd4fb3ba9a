# NeMo for any method. A config adds this base, names its bank and puts `nemo` into its pipeline.
# The other nemo_*.py are variants to be added in its place.
bank = dict(model='ViT-B-32', pretrained='openai', keep=1000)
nemo = dict(
    type='NeMoMosaic',
    schedule=dict(mined=0.5),
    band=dict(tau=0.95, tau_mode='relative', top_k=100),
    grid=dict(cells=(2, 2)),
)
custom_hooks = [
    # Mines the bank before training where it is missing, and checks it where it is not.
    dict(type='NegativeMiningHook', batch_size=64, num_workers=4),
    # Logs which share of the samples were mosaics, and where the band was too small.
    dict(type='MosaicStatisticsHook'),
]
