# The training scenes are others, the test splits those of comparison.py.
_base_ = './comparison.py'
data = (
    'python tools/dataset_converters/make_refshapes.py data/refshapes-few/context '
    '--variants refshapes+ --train 380 --val 300 --testA 10 --testB 300 --context 0.8'
)
question = 'What does NeMo gain where background and companions tell the category in training?'
folder = 'data/refshapes-few/context/'
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
runs = 'context'
cut = (
    'a random mosaic',
    'context alone: such scenes also have more distractors and size words, as companions are not '
    'referred to',
)
