# The data sets of joint training, and what none of them trains on: the images that any of them is
# validated or tested on. They share the images of COCO's train2014, so without the guard one trains
# on what another tests on (docs/joint_training.md). RefCOCOg is the split of umd; if you also test on
# that of google, add 'refcocog/refs(google).p' to the files of the guard.
parts = [
    dict(ann_file='refcoco/instances.json', split_file='refcoco/refs(unc).p'),
    dict(ann_file='refcoco+/instances.json', split_file='refcoco+/refs(unc).p'),
    dict(ann_file='refcocog/instances.json', split_file='refcocog/refs(umd).p'),
]
leak_guard = dict(
    data_root='data/',
    split_files=[part['split_file'] for part in parts],
    splits=['val', 'test', 'testA', 'testB'],
    action='drop',
)
# The guard changes the training sets, so they have banks of their own.
bank_names = ['refcoco_joint', 'refcoco-plus_joint', 'refcocog_joint']
