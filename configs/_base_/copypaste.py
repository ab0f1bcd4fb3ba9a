# Baseline: copy-paste in NeMo's place. A config adds this base and puts `copypaste` into its
# pipeline.
copypaste = dict(type='CopyPaste', prob=0.5)
custom_hooks = [dict(type='MosaicStatisticsHook')]  # logs the share of mixed samples
