# CLIPSeg as published: its decoder has seen the masks of PhraseCut.
model = dict(
    type='CLIPSeg',
    model='CIDAS/clipseg-rd64-refined',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    test_cfg=dict(protocol=dict(type='OriginalProtocol'), chunk_size=16),
)
