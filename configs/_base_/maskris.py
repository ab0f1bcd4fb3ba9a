# Masked training as MaskRIS publishes it. A config adds this base and puts `masked` into the
# `train_cfg` of its model.
masked = dict(
    patch_size=32,  # pixels
    image_ratio=0.75,  # of the patches are hidden
    text_ratio=0.15,  # of the tokens are drawn
    text_shares=(0.8, 0.1),  # of the drawn tokens become the filler, and a random one
    clean_weight=0.5,  # of the losses of the plain pass; the rest is for the masked one
    passes=2,  # 1: plain augmentation
)
