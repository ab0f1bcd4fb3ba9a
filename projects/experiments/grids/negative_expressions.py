# Expressions of one object, several or none: 15 % are replaced by ones that are false of the image.
_base_ = './comparison.py'
data = (
    'python tools/dataset_converters/make_refshapes.py data/refshapes-few/generalized '
    '--variants grefshapes --train 325 --val 300 --testA 10 --testB 300'
)
question = (
    'Do negative expressions teach a network to answer "no target", and does mining them pay?'
)
folder = 'data/refshapes-few/generalized/'
name = 'cris_refshapes-clip{}_1xb16-4e_grefshapes-256x256'
bank = {'train_dataloader.dataset.pipeline.1.bank.path': f'{folder}banks/bank.safetensors'}
rows = {
    '_delete_': True,
    'none': dict(config=name.format('')),
    'random negative expressions': dict(config=name.format('_negexp')),
    'mined negative expressions': dict(config=name.format('_minednegexp'), options=bank),
}
options = {
    'train_dataloader.dataset.data_root': folder,
    'test_dataloader.dataset.data_root': folder,
}
del name, bank, folder
by = ('distractors',)
runs = 'generalized'
cut = ()
