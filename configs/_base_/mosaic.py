# NeMo's baseline with random negatives (the mosaic of YOLOv4, Bochkovskiy et al., arXiv 2004.10934).
# A config adds this base and puts `mosaic` into its pipeline. No bank is needed. All but the choice of
# the negatives is as in NeMo, so a comparison shows what mining does. With grid=dict(jitter=1.0) the
# cells differ in size, as they do in YOLOv4.
mosaic = dict(type='NeMoMosaic', schedule=dict(random=0.5, mined=0.0), grid=dict(cells=(2, 2)))
custom_hooks = [
    # There is nothing to mine, but it refuses a training that is too short for a ramp.
    dict(type='NegativeMiningHook'),
    dict(type='MosaicStatisticsHook'),
]
