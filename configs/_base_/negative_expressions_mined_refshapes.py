# Mined with the small CLIP of the package. tau is chosen by the scene graphs: 8 % of the expressions
# may be true of the image after all (tau=0.95: 18 %; random ones: 7 %).
_base_ = './negative_expressions_mined.py'

# Expressions of groups match their image poorly, so tau drops many: all others are stored.
expression_bank = dict(model='RefShapes-CLIP', pretrained='refshapes', keep=5000)
negative_expression = dict(band=dict(tau=0.6))
