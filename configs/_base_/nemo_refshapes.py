# NeMo on RefShapes. tau and top_k are chosen for this small CLIP, by what the scene graphs say of the
# mosaics: in 10 % of them another cell may show what is meant (tau=0.97, top_k=60: 15 %), and
# negatives show the target's category 1.9 times as often as random ones do (2.1 times).
_base_ = './nemo_refshapes-clip.py'

nemo = dict(band=dict(tau=0.8, top_k=30))
