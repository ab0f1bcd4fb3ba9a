# NeMo mined with the small CLIP of the package.
_base_ = './nemo.py'
bank = dict(model='RefShapes-CLIP', pretrained='refshapes')
nemo = dict(mined_prob=0.3)
