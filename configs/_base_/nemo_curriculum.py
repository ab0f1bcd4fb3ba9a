# NeMo from seldom to often and from easy to hard, over the first ten passes. A ramp is a function of the pass over the
# data, so that it needs no hook and resumes; a training of fewer passes is refused.
_base_ = './nemo.py'

nemo = dict(
    # MMEngine puts a dict in the place of a number only with _delete_.
    mined_prob=dict(_delete_=True, type='LinearRamp', begin=0, end=10, first=0.1, last=0.5),
    tau=dict(_delete_=True, type='LinearRamp', begin=0, end=10, first=0.8, last=0.95),
)
