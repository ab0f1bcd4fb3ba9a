# NeMo with a closing phase: no mosaics in the last fifth of 50 epochs. On RefShapes oIoU is 0.5
# better than with mosaics to the end (docs/experiments.md). Other lengths change the milestone.
_base_ = './nemo.py'

nemo = dict(
    # MMEngine puts a dict in the place of a number only with _delete_.
    schedule=dict(mined=dict(_delete_=True, type='StepRamp', milestones=(40,), values=(0.5, 0.0))),
)
