# Tests on mosaics: each expression's image with three random others, the same for all networks.
_base_ = '../../configs/refshapes/cris_refshapes-clip_mosaic_1xb16-4e_refshapes-plus-256x256.py'
mosaic = dict(_base_.mosaic, schedule=dict(random=1.0, mined=0.0))
test_dataloader = dict(
    batch_size=16,
    dataset=dict(
        data_root='data/refshapes-few/normal/',
        group_by='expression',
        pipeline=[*_base_.sample_transforms, mosaic, *_base_.pack_transforms],
    ),
)
randomness = dict(seed=0)
# Drawings would show the masks on the image files.
default_hooks = dict(visualization=dict(draw=False))
