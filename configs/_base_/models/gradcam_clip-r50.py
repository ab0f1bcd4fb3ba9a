_base_ = './gradcam_clip-vit-b-16.py'
model = dict(model='RN50')
