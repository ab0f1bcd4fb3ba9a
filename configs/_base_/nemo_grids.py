# NeMo with 2x2 and 3x3 grids in equal shares (published as `mix_grid`), lines that move (`move_crs_pnt`; 'free' is
# `rand_crs`), and negatives that are cropped to their cells instead of stretched (ours).
_base_ = './nemo.py'

nemo = dict(
    grid=[(2, 2), (3, 3)], grid_probs=[0.5, 0.5], crossing=0.5, negative_fit='crop', min_cell=16
)
