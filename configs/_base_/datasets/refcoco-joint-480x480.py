# As refcoco-joint.py, read as LAVT reads it (refcoco-480x480.py).
_base_ = ['./refcoco-480x480.py', '../joint.py']

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
# The expressions differ from those of other networks, and so do the banks.
bank_names = [f'{name}_raw' for name in _base_.bank_names]
