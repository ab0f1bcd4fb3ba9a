# The demo's network: a small CRIS on the small CLIP of the package, for two CPU cores.
_base_ = [
    '../_base_/models/cris_refshapes-clip.py',
    '../_base_/datasets/refshapes-plus.py',
    '../_base_/schedules/refshapes.py',
    '../_base_/default_runtime.py',
]

model = dict(test_cfg=dict(protocol=dict(type='OriginalProtocol', threshold=0.35)))
default_hooks = dict(channels_last=dict(type='ChannelsLastHook'))
