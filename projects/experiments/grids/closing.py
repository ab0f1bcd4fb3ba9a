# Two rows of mosaics.py: are the last epochs better without mosaics?
_base_ = './mosaics.py'
question = 'Are the last epochs better without mosaics, as detectors end their training?'
baseline = 'NeMo'
rows = {
    '_delete_': True,
    'NeMo': _base_.rows['NeMo'],
    'none in the last fifth': _base_.rows['none in the last fifth'],
}
cut = ('no augmentation, which comparison.py has',)
