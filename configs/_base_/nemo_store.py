# NeMo that reads its mosaics from a tile store. Every training image is resized to a cell once, into
# one memory-mapped file that all workers share. A mosaic then costs about 0.3 of a sample without
# mosaic (docs/performance.md). A config adds this base in place of nemo.py and names its own store:
#     nemo = dict(_base_.nemo, tiles=dict(path='data/tiles/NAME_240x240.safetensors'), bank=bank, ...)
# NegativeMiningHook makes the store where it is missing. Raw tiles have the pixels of a mosaic
# without store and take height x width x 3 bytes each (RefCOCO at 480x480: 2.9 GB). With
# encoding='jpeg' they take a fifth.
_base_ = './nemo.py'

nemo = dict(tiles=dict(path='data/tiles/train.safetensors', encoding='raw'))
