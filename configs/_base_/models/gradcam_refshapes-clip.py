# The small CLIP of the package knows the words of RefShapes only, none for a background.
_base_ = './gradcam_clip-vit-b-16.py'
model = dict(model='RefShapes-CLIP', pretrained='refshapes', template='{}', background=())
