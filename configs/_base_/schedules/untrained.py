# A network that is used as it was published. Its config also sets train_dataloader = None.
train_cfg = None
optim_wrapper = None
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
# Several processes share the images; there is nothing that they would have to keep equal.
model_wrapper_cfg = dict(type='Undistributed')
