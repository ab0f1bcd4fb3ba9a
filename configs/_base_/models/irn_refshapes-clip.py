# A small affinity network on the small CLIP that comes with the package: its stem's map is not
# looked at, the last stage has a stride of 32. It learns from nearer pairs of pixels.
model = dict(
    type='EdgeDisplacementNet',
    data_preprocessor=dict(
        type='ImgDataPreprocessor',
        # CLIP's mean and standard deviation times 255
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
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
    loss=dict(type='AffinityDisplacementLoss', radius=5),
)
