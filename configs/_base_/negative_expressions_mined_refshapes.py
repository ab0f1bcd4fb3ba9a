# Mined with the small CLIP of the package.
_base_ = './negative_expressions_mined.py'

expression_bank = dict(model='RefShapes-CLIP', pretrained='refshapes')
