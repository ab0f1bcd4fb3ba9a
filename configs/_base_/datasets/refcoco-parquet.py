# RefCOCO (unc) from Parquet as the Hugging Face hub has it: `hf download jxu124/refcoco --repo-type
# dataset` puts it into the hub's cache, `--local-dir data/jxu124/refcoco` into a folder. The images
# are COCO's train2014. Masks, expressions and ids are RefCOCO's own, so its banks fit, too.
_base_ = './refcoco.py'
dataset_type = 'ParquetRefCOCODataset'
ann_file = 'jxu124/refcoco'
dataset = 'refcoco'

files = dict(
    _delete_=True,
    type=dataset_type,
    data_root=_base_.data_root,
    ann_file=ann_file,
    dataset=dataset,
    data_prefix=_base_.data_prefix,
)
train_dataloader = dict(
    dataset=dict(**files, split='train', group_by='reference', pipeline=_base_.train_pipeline)
)
val_dataloader = dict(
    dataset=dict(
        **files, split='val', group_by='image', test_mode=True, pipeline=_base_.test_pipeline
    )
)
test_dataloader = val_dataloader
