# Ref-ZOM: expressions of zero, one or many objects; splits train and test. Its images are those of
# COCO's train2014 and val2014, in one folder (docs/ready_data.md).
_base_ = './grefcoco.py'
dataset_type = 'RefZOMDataset'
ann_file = 'ref-zom/instances.json'
split_file = 'ref-zom/refs(final).p'
data_prefix = dict(img_path='coco/trainval2014/')
bank_name = 'ref-zom_raw'

# The field that the published reader reads: expressions as typed.
text_key = 'raw'
files = dict(
    type=dataset_type,
    ann_file=ann_file,
    split_file=split_file,
    data_prefix=data_prefix,
    text_key=text_key,
)
train_dataloader = dict(dataset=files)
val_dataloader = dict(dataset=dict(**files, split='test'))
test_dataloader = val_dataloader
# DMMI's rule is one empty mask alone: no_target='area'.
val_evaluator = dict(_delete_=True, type='RefZOMIoU')
test_evaluator = val_evaluator
