# A small affinity network on the small CLIP that comes with the package: its stem's map is not
# looked at, the last stage has a stride of 32.
model = dict(
    type='EdgeDisplacementNet',
    data_preprocessor=dict(
        type='ImgDataPreprocessor',
        mean=[122.771, 116.746, 104.094],
        std=[68.501, 66.632, 70.323],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='OpenCLIPResNet',
        model='RefShapes-CLIP',
        pretrained='refshapes',
        out_indices=(0, 1, 2, 3),
        attention_pool=False,
    ),
    channels=(64, 128, 256, 512),
    strides=(4, 8, 16, 32),
    pad_to=32,
    loss=dict(type='AffinityDisplacementLoss', radius=10),
)
