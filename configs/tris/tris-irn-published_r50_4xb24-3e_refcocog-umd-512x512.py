# As published, its faults included: 1e-4 as momentum, and a mean displacement over padding, too,
# without the last incomplete batch.
_base_ = './tris-irn_r50_4xb24-3e_refcocog-umd-512x512.py'

optim_wrapper = dict(optimizer=dict(lr=0.1, momentum=1e-4))
custom_hooks = [
    dict(
        type='MeanDisplacementHook',
        dataloader=dict(_base_.mean_dataloader, drop_last=True),
        count_padding=True,
    )
]
