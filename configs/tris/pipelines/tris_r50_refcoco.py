# All of TRIS on RefCOCO, from expressions to a network: tools/train_tris.py runs it.
stage1 = dict(config='tris-stage1_r50_1xb48-15e_refcoco-320x320')
affinity = dict(config='tris-irn_r50_4xb24-3e_refcoco-512x512')
stage2 = dict(
    config='tris-stage2_r50_1xb48-15e_refcoco-320x320',
    # Some references get no mask. They are named and counted, and left out.
    options={'train_dataloader.dataset.unlabelled': 'leave_out'},
)
# Of each stage: 'best' on val, as published, which reads the masks of val; or 'last'.
checkpoint = 'best'
splits = ('val', 'testA', 'testB')
# Processes that make labels and masks. One would take over a day.
workers = 8
# --compare: what the scores are compared with. No training where there is nothing to train.
compare = {'CLIP Grad-CAM': dict(config='gradcam_clip-vit-b-16_refcoco-320x320')}
