# What RefCOCO, RefCOCO+ and RefCOCOg test on. They share the images of COCO's train2014, so one
# trains on what another tests on; `python tools/misc/check_overlap.py` counts these images.
#     nemo = dict(_base_.nemo, ..., leak_guard=_base_.leak_guard)
# keeps them out of mosaics. A data set takes the same dict, and then does not train on them at all
# (docs/joint_training.md). A missing file is an error: remove the data sets that you do not have
# and do not test on. gRefCOCO is not in the list, because its paper uses the split of RefCOCO
# (unc). If you test on it, add 'grefcoco/grefs(unc).json'.
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
