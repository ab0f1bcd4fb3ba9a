# The runs of comparison.py on the images that they were trained on.
_base_ = './comparison.py'
question = 'How far is the training set learned by heart? To be compared with val in comparison.md.'
rows = {
    '_delete_': True,
    'none': _base_.rows['none'],
    'random mosaic': _base_.rows['random mosaic'],
    'NeMo': _base_.rows['NeMo'],
    'MaskRIS': _base_.rows['MaskRIS'],
}
splits = ('train',)
by = ()
cut = ()
