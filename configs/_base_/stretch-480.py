# LAVT's samples: image and mask stretched to 480x480 as PIL does it (the image antialiased, the mask by nearest pixel).
# PIL resizes one mask: a training sample of several expressions needs backend='cv2'.
stretched_size = (480, 480)
stretch = dict(type='Resize', scale=stretched_size[::-1], keep_ratio=False, backend='pillow')
stretched_load = [dict(type='LoadReferringImage'), dict(type='LoadReferentMask'), stretch]
# The mask stays at the size of the image: LAVT's test protocol stretches it.
stretched_test = [
    dict(type='LoadReferringImage'),
    stretch,
    dict(type='LoadReferentMask'),
    dict(type='PackReferringInputs'),
]
