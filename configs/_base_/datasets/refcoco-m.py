# Trained on RefCOCO (unc), tested on RefCOCO-M: `hf download moondream/refcoco-m --repo-type dataset`.
# Its images lie in the Parquet file and are written to img_path once (0.6 GB). COCO's folder, which
# has them, does as well: --cfg-options test_dataloader.dataset.data_prefix.img_path=coco/train2014/
_base_ = './refcoco.py'

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='RefCOCOMDataset',
        data_root=_base_.data_root,
        ann_file='moondream/refcoco-m',
        split='val',
        data_prefix=dict(img_path='refcoco-m/images/'),
        group_by='image',
        test_mode=True,
        pipeline=_base_.test_pipeline,
    )
)
