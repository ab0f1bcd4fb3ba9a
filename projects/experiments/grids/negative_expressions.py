# Expressions of one object, several or none: 15 % are replaced by ones that are false of the image.
_base_ = './comparison.py'
data = (
    'python tools/dataset_converters/make_refshapes.py data/refshapes-few/generalized '
    '--variants grefshapes --train 325 --val 300 --testA 10 --testB 300'
)
question = (
    'Do negative expressions teach a network to answer "no target", and does mining them pay?'
)
data_root = 'data/refshapes-few/generalized/'
name = 'cris_refshapes-clip{}_1xb16-4e_grefshapes-256x256'
bank = {'train_dataloader.dataset.pipeline.1.bank.path': f'{data_root}banks/bank.safetensors'}
rows = {
    '_delete_': True,
    'none': dict(config=name.format('')),
    'random negative expressions': dict(config=name.format('_negexp')),
    'mined negative expressions': dict(config=name.format('_minednegexp'), options=bank),
}
options = {f'{loader}_dataloader.dataset.data_root': data_root for loader in ('train', 'test')}
del name, bank, data_root
by = ('distractors',)
runs = 'generalized'
cut = ()
