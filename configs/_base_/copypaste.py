# NeMo's rival copy-paste: a config adds this base and puts `copypaste` between the parts of its pipeline.
copypaste = dict(type='CopyPaste', prob=0.5)
custom_hooks = [dict(type='MosaicStatisticsHook')]  # logs the share of mixed samples
