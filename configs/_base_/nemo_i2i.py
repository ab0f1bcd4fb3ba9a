# NeMo whose negatives must not look like the target's image (the published option `i2i_sim_thres`).
# With tau=None this threshold is the only one, as it is there without `t2i_only`. Here both hold. The
# value belongs to one CLIP.
_base_ = './nemo.py'

nemo = dict(band=dict(i2i_sim_thres=0.9))
