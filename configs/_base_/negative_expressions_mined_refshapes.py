# Mined with the small CLIP of the package.
_base_ = './negative_expressions_mined.py'

# Expressions of groups match their image poorly, so tau drops many: all others are stored.
expression_bank = dict(model='RefShapes-CLIP', pretrained='refshapes', keep=5000)
