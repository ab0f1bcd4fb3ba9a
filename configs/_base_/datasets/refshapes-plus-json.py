# RefShapes, appearance variant, in the JSON form of own data (docs/own_data.md):
#     python tools/dataset_converters/to_referring_json.py refcoco \
#         "data/refshapes/refshapes+/refs(unc).p" data/refshapes/refshapes+/instances.json \
#         data/refshapes/refshapes+/referring.json
_base_ = './refshapes-plus.py'
ann_file = 'refshapes+/referring.json'
bank_name = 'refshapes-plus-json'

files = dict(
    _delete_=True,
    type='ReferringJSONDataset',
    data_root=_base_.data_root,
    ann_file=ann_file,
    data_prefix=_base_.data_prefix,
)
tested = dict(split='val', group_by='image', test_mode=True)
train_dataloader = dict(
    dataset=dict(
        **files,
        split='train',
        pipeline=[*_base_.sample_transforms, *_base_.load_transforms, *_base_.pack_transforms],
    )
)
val_dataloader = dict(dataset=dict(**files, **tested, pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
