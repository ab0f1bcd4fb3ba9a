# The training scenes are others, the test splits those of comparison.py.
_base_ = './comparison.py'
data = (
    'python tools/dataset_converters/make_refshapes.py data/refshapes-few/hard '
    '--variants refshapes+ --train 330 --val 300 --testA 10 --testB 300 --distractors hard'
)
question = 'What does NeMo gain where training scenes hold many distractors?'
folder = 'data/refshapes-few/hard/'
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
runs = 'hard'
cut = ('a random mosaic',)
