# NeMo's rival CutMix: a config adds this base and puts `cutmix` between the parts of its pipeline.
cutmix = dict(type='CutMix', prob=0.5)
custom_hooks = [dict(type='MosaicStatisticsHook')]  # logs the share of mixed samples
