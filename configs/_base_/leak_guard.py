# What the RefCOCO family tests on, which no mosaic may show: nemo = dict(_base_.nemo, ..., leak_guard=_base_.leak_guard).
# A data set takes it, too, and then trains on none of these images (docs/joint_training.md). The three share COCO's
# train2014: `python tools/check_overlap.py` counts the images that are concerned.
leak_guard = dict(
    data_root='data/',
    split_files=[
        'refcoco/refs(unc).p',
        'refcoco+/refs(unc).p',
        'refcocog/refs(umd).p',
        'refcocog/refs(google).p',
    ],
    splits=['val', 'test', 'testA', 'testB'],
    action='drop',  # or 'error'
)
