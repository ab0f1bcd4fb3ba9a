# NeMo on RefShapes. tau and top_k are chosen for this small CLIP, by what the scene graphs say of the
# mosaics.
_base_ = './nemo_refshapes-clip.py'

nemo = dict(band=dict(tau=0.97, top_k=60))
