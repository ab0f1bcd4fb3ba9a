# As refcoco-clean.py, and also on the expressions that a reviewer found right. reviewed_val.json is
# yours: sentence id -> true or false.
_base_ = './refcoco-clean.py'

val_dataloader = dict(dataset=dict(reviewed='refcoco/reviewed_val.json'))
test_dataloader = val_dataloader
