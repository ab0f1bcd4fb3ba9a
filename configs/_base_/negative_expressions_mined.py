# As negative_expressions.py, with expressions that CLIP finds near the image. A config adds where
# they lie:
#     negative_expression = dict(
#         _base_.negative_expression,
#         bank=dict(_base_.expression_bank, path='data/banks/grefcoco_unc_train_expressions.safetensors'),
#     )
# and, unless a base has it (nemo.py), what mines them before training:
#     custom_hooks = [dict(type='NegativeMiningHook', batch_size=64, num_workers=4)]
expression_bank = dict(model='ViT-B-32', pretrained='openai', keep=1000)
negative_expression = dict(
    type='ReplaceByNegativeExpression',
    prob=0.15,
    band=dict(tau=0.95, tau_mode='relative', top_k=100),
)
