# The baseline CutMix. A config adds this base and puts `cutmix` in the place of its load_transforms.
cutmix = dict(type='CutMix', prob=0.5)
custom_hooks = [dict(type='MosaicStatisticsHook')]  # logs the share of mixed samples
