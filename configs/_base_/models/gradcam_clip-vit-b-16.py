# Grad-CAM of OpenAI's CLIP ViT-B/16, after CLIP-ES. A pixel is foreground above half of the maximum.
model = dict(
    type='CLIPGradCAM',
    model='ViT-B-16',
    pretrained='openai',
    template='a photo of {}',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        # CLIP's
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
        bgr_to_rgb=True,
    ),
    test_cfg=dict(protocol=dict(type='TRISProtocol', threshold=0.5)),
)
# What tools/pseudo_labels/make_response_maps.py keeps of a reference.
response_maps = dict(
    split='train', selection=dict(type='PRMS', model='ViT-B-32', pretrained='openai')
)
