# A share of the expressions is replaced by random ones that are false of the image (DeRIS), with an
# empty mask. For gRefCOCO and networks that can answer "no target". A config adds this base and puts
# `negative_expression` right behind `sample_transforms`, before NeMo if it has that, too:
#     train_dataloader = dict(
#         dataset=dict(
#             pipeline=[
#                 *_base_.sample_transforms,
#                 _base_.negative_expression,
#                 *_base_.load_transforms,
#                 *_base_.pack_transforms,
#             ]
#         )
#     )
negative_expression = dict(type='ReplaceByNegativeExpression', prob=0.15)
