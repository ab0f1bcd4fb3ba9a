# The runs of comparison.py once more: is a mined mosaic better than a random one?
_base_ = './comparison.py'
question = 'Does mining pay: NeMo against a random mosaic?'
baseline = 'random mosaic'
name = 'cris_refshapes-clip{}_1xb16-4e_refshapes-plus-256x256'
bank = {
    'train_dataloader.dataset.pipeline.1.bank.path': 'data/refshapes-few/normal/banks/bank.safetensors'
}
rows = {
    '_delete_': True,
    'random mosaic': dict(config=name.format('_mosaic')),
    'NeMo': dict(config=name.format('_nemo'), options=bank),
}
del name, bank
cut = ()
