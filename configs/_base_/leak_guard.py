# What the RefCOCO family tests on, which no mosaic may show: nemo = dict(_base_.nemo, ..., leak_guard=_base_.leak_guard).
# A data set takes it, too, and then trains on none of these images (docs/joint_training.md). The three share COCO's
# train2014: `python tools/misc/check_overlap.py` counts the images that are concerned.
# gRefCOCO shares it, too, but its file is not in the list: a missing file is an error, and most have none. Its paper
# gives it the partition of RefCOCO (unc), which is in the list (check_overlap.py tells whether your files agree). Who
# tests on gRefCOCO adds 'grefcoco/grefs(unc).json'; who lacks a file and does not test on it takes it out.
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
