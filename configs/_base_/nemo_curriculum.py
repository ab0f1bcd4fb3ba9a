# NeMo from seldom to often and from easy to hard, over the first ten epochs. A shorter training is
# refused.
_base_ = './nemo.py'

nemo = dict(
    # MMEngine puts a dict in the place of a number only with _delete_.
    schedule=dict(
        mined=dict(_delete_=True, type='LinearRamp', begin=0, end=10, first=0.1, last=0.5)
    ),
    band=dict(tau=dict(_delete_=True, type='LinearRamp', begin=0, end=10, first=0.8, last=0.95)),
)
