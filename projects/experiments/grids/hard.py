# The training scenes are others, the test splits those of comparison.py.
_base_ = './comparison.py'
data = (
    'python tools/dataset_converters/make_refshapes.py data/refshapes-few/hard '
    '--variants refshapes+ --train 325 --val 300 --testA 10 --testB 300 --distractors hard'
)
question = 'Does NeMo help less where training scenes hold many distractors?'
data_root = 'data/refshapes-few/hard/'
name = 'cris_refshapes-clip{}_1xb16-4e_refshapes-plus-256x256'
bank = {'train_dataloader.dataset.pipeline.1.bank.path': f'{data_root}banks/bank.safetensors'}
rows = {
    '_delete_': True,
    'none': dict(config=name.format('')),
    'NeMo': dict(config=name.format('_nemo'), options=bank),
}
options = {f'{loader}_dataloader.dataset.data_root': data_root for loader in ('train', 'test')}
del name, bank, data_root
runs = 'hard'
cut = ('a random mosaic',)
