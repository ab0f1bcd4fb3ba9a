# NeMo's rival MixGen: a config adds this base and puts `mixgen` between the parts of its pipeline.
mixgen = dict(type='MixGen', prob=0.5)
custom_hooks = [dict(type='MosaicStatisticsHook')]  # logs the share of mixed samples
