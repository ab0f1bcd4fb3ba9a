# Ref-ZOM as ReLA reads gRefCOCO; see ref-zom.py.
_base_ = './grefcoco-480x480.py'
ann_file = 'ref-zom/instances.json'
split_file = 'ref-zom/refs(final).p'
data_prefix = dict(img_path='coco/trainval2014/')
bank_name = 'ref-zom_raw'

files = dict(
    type='RefZOMDataset', ann_file=ann_file, split_file=split_file, data_prefix=data_prefix
)
train_dataloader = dict(dataset=files)
val_dataloader = dict(dataset=dict(**files, split='test'))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='RefZOMIoU')
test_evaluator = val_evaluator
