# All of TRIS in small, on RefShapes, for two CPU cores: tools/train_tris.py runs it.
stage1 = dict(
    config='tris-stage1_refshapes-clip_1xb16-4e_refshapes-plus-256x256',
)
affinity = dict(config='tris-irn_refshapes-clip_1xb8-100i_refshapes-plus-256x256')
stage2 = dict(
    config='tris-stage2_refshapes-clip_1xb16-6e_refshapes-plus-256x256',
    options={
        # Some references get no mask. They are named and counted, and left out.
        'train_dataloader.dataset.unlabelled': 'leave_out',
    },
)
# No validation, so that no mask is read before the scores.
checkpoint = 'last'
splits = ('val', 'testB')
workers = 2
# --compare: what the scores are compared with.
compare = {
    'CLIP Grad-CAM': dict(config='gradcam_refshapes-clip_refshapes-plus-256x256'),
    'stage 2 with annotated masks': dict(
        config='tris-stage2_refshapes-clip_1xb16-6e_refshapes-plus-256x256',
        options={
            'train_dataloader.dataset.ann_file': 'refshapes+/instances.json',
        },
    ),
}
