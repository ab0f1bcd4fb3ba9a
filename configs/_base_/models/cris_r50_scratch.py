# CRIS (R50) without a download: CLIP's network and vocabulary, but none of its weights.
_base_ = './cris_r50.py'
model = dict(
    text_encoder=dict(pretrained=None),
    backbone=dict(pretrained=None),
    # Small inputs: a third of a cell of misplacement would cost much.
    decode_head=dict(target_resize='area'),
    test_cfg=dict(protocol='original'),
)
