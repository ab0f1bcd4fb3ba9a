# GroupViT as published; the licence of these weights does not allow commercial use.
model = dict(
    type='GroupViT',
    model='nvidia/groupvit-gcc-yfcc',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    test_cfg=dict(protocol=dict(type='OriginalProtocol')),
)
