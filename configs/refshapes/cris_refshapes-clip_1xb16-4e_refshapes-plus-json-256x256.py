# The demo's network on data in the JSON form of own data (docs/own_data.md).
_base_ = [
    '../_base_/models/cris_refshapes-clip.py',
    '../_base_/datasets/refshapes-plus-json.py',
    '../_base_/schedules/refshapes.py',
    '../_base_/default_runtime.py',
]

model = dict(test_cfg=dict(protocol=dict(type='OriginalProtocol', threshold=0.35)))
default_hooks = dict(channels_last=dict(type='ChannelsLastHook'))
