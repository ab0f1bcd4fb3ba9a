# The paper's claim that the gain grows with the distractors: the same runs as comparison.py, sliced finer.
_base_ = './comparison.py'
question = 'Does the gain grow with the number of distractors?'
rows = {
    '_delete_': True,
    'none': dict(config='cris_refshapes-clip_1xb16-4e_refshapes-plus-256x256'),
    'random mosaic': dict(config='cris_refshapes-clip_mosaic_1xb16-4e_refshapes-plus-256x256'),
    'NeMo': dict(config='cris_refshapes-clip_nemo_1xb16-4e_refshapes-plus-256x256'),
}
by = ('distractors', 'length', 'area')
cut = (
    'the other variants of RefShapes',
    'gains by position words, which refshapes+ has none of',
    'runs of its own: these are those of comparison.py',
)
