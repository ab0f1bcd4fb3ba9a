# All of TRIS on data in the JSON form (docs/own_data.md): tools/train_tris.py runs it.
_base_ = './tris_refshapes-plus.py'

stage1 = dict(config='tris-stage1_refshapes-clip_1xb16-4e_refshapes-plus-json-256x256')
stage2 = dict(config='tris-stage2_refshapes-clip_1xb16-6e_refshapes-plus-json-256x256')
compare = dict(_delete_=True)
