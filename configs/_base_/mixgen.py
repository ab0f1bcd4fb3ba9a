# The baseline MixGen. A config adds this base and puts `mixgen` in the place of its load_transforms.
mixgen = dict(type='MixGen', prob=0.5)
custom_hooks = [dict(type='MosaicStatisticsHook')]  # logs the share of mixed samples
