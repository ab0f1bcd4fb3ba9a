_base_ = './tris_r50_refcoco.py'

stage1 = dict(config='tris-stage1_r50_1xb48-15e_refcoco-plus-320x320')
affinity = dict(config='tris-irn_r50_4xb24-3e_refcoco-plus-512x512')
stage2 = dict(config='tris-stage2_r50_1xb48-15e_refcoco-plus-320x320')
splits = ('val', 'testA', 'testB')
compare = {'CLIP Grad-CAM': dict(config='gradcam_clip-vit-b-16_refcoco-plus-320x320')}
