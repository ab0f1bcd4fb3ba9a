# The baseline copy-paste. A config adds this base and puts `copypaste` in the place of its load_transforms.
copypaste = dict(type='CopyPaste', prob=0.5)
custom_hooks = [dict(type='MosaicStatisticsHook')]  # logs the share of mixed samples
