# Baseline: MixGen in NeMo's place. A config adds this base and puts `mixgen` into its pipeline.
mixgen = dict(type='MixGen', prob=0.5)
custom_hooks = [dict(type='MosaicStatisticsHook')]  # logs the share of mixed samples
