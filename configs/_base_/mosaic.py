# NeMo's rival with random negatives (the mosaic of YOLOv4, Bochkovskiy et al., arXiv 2004.10934): a config adds this
# base and puts `mosaic` between the parts of its pipeline. No bank. All but the choice of the negatives is as in NeMo,
# so that a comparison shows what mining does; with crossing=1.0 the cells differ in size, as they do in YOLOv4.
mosaic = dict(type='NeMoMosaic', random_prob=0.5, mined_prob=0.0, grid=(2, 2))
custom_hooks = [
    # There is nothing to mine, but it refuses a training that is too short for a ramp of the mosaic.
    dict(type='NegativeMiningHook'),
    dict(type='MosaicStatisticsHook'),
]
