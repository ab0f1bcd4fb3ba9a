# NeMo mined with the small CLIP of the package.
_base_ = './nemo.py'

bank = dict(model='RefShapes-CLIP', pretrained='refshapes')
nemo = dict(schedule=dict(mined=0.3))
