default_scope = 'mmseg'
custom_imports = dict(imports=['nemo_mmseg'], allow_failed_imports=False)

# The seed decides every sample, whatever the number of workers.
randomness = dict(seed=0)
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        interval=1,
        max_keep_ckpts=2,
        save_best='oIoU',
        rule='greater',
        backend_args=dict(backend='whole_file'),  # a full disk leaves no part of a checkpoint
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    iteration_seed=dict(type='IterationSeedHook'),
    precision=dict(type='CPUPrecisionHook'),
    visualization=dict(type='ReferringVisualizationHook', interval=50),
)
# TensorBoard: add dict(type='TensorboardVisBackend').
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='ReferringVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
