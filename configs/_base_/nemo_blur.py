# The paper's ablation of scale: negatives are blurred beyond recognition, and only the target's small size is left of
# the augmentation.
_base_ = './nemo.py'

nemo = dict(negative_blur=0.1)
