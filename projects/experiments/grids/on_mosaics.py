# The runs of comparison.py, tested on mosaics of val instead of single images.
_base_ = './comparison.py'
question = 'Is the target found among four images, three of which are distractors?'
splits = ('val',)
by = ('area',)
test_config = 'on_mosaics_test.py'
cut = ('mosaics with mined negatives, for which val has no bank',)
