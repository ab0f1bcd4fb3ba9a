# IRN's affinity network, as TRIS trains it: ResNet-50, pretrained on ImageNet and frozen; its last
# stage keeps the stride of 16 without dilation.
model = dict(
    type='EdgeDisplacementNet',
    data_preprocessor=dict(
        type='ImgDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='StemResNet',
        depth=50,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 1),
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        frozen_stages=4,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    loss=dict(type='AffinityDisplacementLoss', radius=10),
)
