# The small CLIP of the package knows the words of RefShapes only, none for a background.
_base_ = './gradcam_clip-vit-b-16.py'
clip = dict(model='RefShapes-CLIP', pretrained='refshapes')
model = dict(**clip, template='{}', background=())
response_maps = dict(selection=clip)
