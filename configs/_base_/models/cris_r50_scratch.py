# CRIS (R50) without a download: CLIP's network and vocabulary, but none of its weights.
_base_ = './cris_r50.py'
model = dict(
    # With weights of 1 in its norms, a random CLIP's sentences are three times as long as CLIP's. A
    # logit multiplies a sentence by 2304 values of the map, so logits would start at +-30.
    text_encoder=dict(pretrained=None, init_cfg=dict(type='Constant', layer='LayerNorm', val=0.3)),
    backbone=dict(pretrained=None),
    # Inputs are small: masks misplaced by a third of a cell would cost much.
    decode_head=dict(gt_resize='area'),
    test_cfg=dict(protocol=dict(type='OriginalProtocol', threshold=0.35)),
)
