# The paper's ablation of scale. Negatives are blurred beyond recognition, so only the target's small
# size is left of the augmentation.
_base_ = './nemo.py'

nemo = dict(fill=dict(blur=0.1))
