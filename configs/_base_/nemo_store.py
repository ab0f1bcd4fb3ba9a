# NeMo that reads its mosaics from a tile store: every training image is resized to a cell once, into one memory-mapped
# file that all workers share, and a mosaic costs about 0.3 of a plain sample (docs/performance.md; with target=False as
# much as one). A config adds this base in place of nemo.py and names a store of its own for each data set and size:
#     nemo = dict(_base_.nemo, store=dict(_base_.nemo.store, path='data/tiles/NAME_240x240.safetensors'), bank=..., ...)
# NegativeMiningHook makes the store where it is missing. Raw tiles have the pixels of a mosaic without store and take
# height x width x 3 bytes each (RefCOCO at 480x480: 2.9 GB); encoding='jpeg' takes a fifth. target=True reads the
# referent's own cell from the store as well.
_base_ = './nemo.py'

nemo = dict(store=dict(path='data/tiles/train.safetensors', encoding='raw', target=True))
