# ReLA (Liu et al., 2023) as published: LAVT's Swin-B with windows of 12 and BERT-base, in training
# with dropout. The other size changes Swin's four numbers, its pretrained weights and the neck's
# channels.
_base_ = './lavt_swin-base-w12.py'
model = dict(
    text_encoder=dict(dropout=True),
    # Gates stay at zero: language reaches the network by the four maps, not by Swin's stream.
    backbone=dict(gate_init='zero'),
    neck=dict(type='ReLAPixelDecoder', in_channels=(128, 256, 512, 1024)),
    decode_head=dict(_delete_=True, type='ReLAHead', word_channels=768),
    test_cfg=dict(protocol=dict(type='ReLAProtocol')),
)
