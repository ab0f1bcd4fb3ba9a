# The published `lavt_one`: BERT's dropout is on, and 8 GPUs have 4 images each.
_base_ = './lavt_swin-base-w12_4xb8-40e_refcoco-480x480.py'
model = dict(text_encoder=dict(dropout=True))
train_dataloader = dict(batch_size=4)
