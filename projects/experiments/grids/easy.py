# The training scenes are others, the test splits those of comparison.py.
_base_ = './comparison.py'
data = (
    'python tools/dataset_converters/make_refshapes.py data/refshapes-few/easy '
    '--variants refshapes+ --train 392 --val 300 --testA 10 --testB 300 --distractors easy'
)
question = 'What does NeMo gain where training scenes hold hardly a distractor?'
folder = 'data/refshapes-few/easy/'
nemo = _base_.rows['NeMo']
bank = {'train_dataloader.dataset.pipeline.1.bank.path': f'{folder}banks/bank.safetensors'}
rows = {
    '_delete_': True,
    'none': _base_.rows['none'],
    'NeMo': dict(nemo, options={**nemo['options'], **bank}),
}
options = {
    'train_dataloader.dataset.data_root': folder,
    'test_dataloader.dataset.data_root': folder,
}
del nemo, bank, folder
runs = 'easy'
cut = ('a random mosaic',)
