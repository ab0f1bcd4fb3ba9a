# VPD's schedule: LAVT's AdamW, 32 images per step over all GPUs (8 x 4), 40 epochs, the learning
# rate falls to 0 by iteration. The published code asks for a hundredth of the rate in the UNet
# (`lr_scale`), but nothing there reads it: as published, all learns at the full rate.
_base_ = './lavt_40e.py'
# Everything decays, the norms of the UNet's ResNet blocks included, except those of its
# transformers.
optim_wrapper = dict(
    paramwise_cfg=dict(
        _delete_=True,
        custom_keys={
            'attentions.0.norm': dict(decay_mult=0.0),
            'attentions.1.norm': dict(decay_mult=0.0),
            'attentions.2.norm': dict(decay_mult=0.0),
            'transformer_blocks.0.norm': dict(decay_mult=0.0),
        },
    )
)
