_base_ = './tris_r50_refcoco.py'

stage1 = dict(config='tris-stage1_r50_1xb48-15e_refcocog-umd-320x320')
affinity = dict(config='tris-irn_r50_4xb24-3e_refcocog-umd-512x512')
stage2 = dict(config='tris-stage2_r50_1xb48-15e_refcocog-umd-320x320')
splits = ('val', 'test')
compare = {'CLIP Grad-CAM': dict(config='gradcam_clip-vit-b-16_refcocog-umd-320x320')}
