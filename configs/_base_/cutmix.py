# Baseline: CutMix in NeMo's place. A config adds this base and puts `cutmix` into its pipeline.
cutmix = dict(type='CutMix', prob=0.5)
custom_hooks = [dict(type='MosaicStatisticsHook')]  # logs the share of mixed samples
