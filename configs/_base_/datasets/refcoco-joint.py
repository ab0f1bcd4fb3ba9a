# RefCOCO, RefCOCO+ and RefCOCOg trained on together, without the images that any of them is tested
# on (../joint.py). Training validates on RefCOCO's val; tools/analysis_tools/benchmark_splits.py
# tests on the splits of all three.
_base_ = ['./refcoco.py', '../joint.py']

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        ignore_keys=['dataset_name'],
        datasets=[
            dict(_base_.train_dataloader.dataset, **part, leak_guard=_base_.leak_guard)
            for part in _base_.parts
        ],
    )
)
