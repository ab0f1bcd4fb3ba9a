# NeMo with 2x2 and 3x3 grids in equal shares (published as `mix_grid`) and lines that move
# (`move_crs_pnt`; jitter='free' is `rand_crs`). Negatives are cropped to their cells instead of
# stretched, which is ours.
_base_ = './nemo.py'

nemo = dict(
    grid=dict(cells=[(2, 2), (3, 3)], probs=[0.5, 0.5], jitter=0.5, min_cell=16),
    fill=dict(fit='crop'),
)
