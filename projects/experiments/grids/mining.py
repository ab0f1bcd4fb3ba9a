# The runs of comparison.py once more: is a mined mosaic better than a random one?
_base_ = './comparison.py'
question = 'Does mining pay: NeMo against a random mosaic?'
baseline = 'random mosaic'
rows = {
    '_delete_': True,
    'random mosaic': _base_.rows['random mosaic'],
    'NeMo': _base_.rows['NeMo'],
}
cut = ()
