# The same training on a quarter of the images: 16 epochs of 1,254 references in place of 4 of 5,017.
_base_ = './comparison.py'
question = 'Does NeMo help where training images are few, and epochs many?'
name = 'cris_refshapes-clip{}_1xb16-4e_refshapes-plus-256x256'
bank = 'data/refshapes/banks/refshapes-plus_train-1254_refshapes-clip.safetensors'
rows = {
    '_delete_': True,
    'none': dict(config=name.format('')),
    'NeMo': dict(
        config=name.format('_nemo'), options={'train_dataloader.dataset.pipeline.1.bank.path': bank}
    ),
}
del name, bank
options = {'train_dataloader.dataset.indices': 1254}
by = ('distractors',)
runs = 'refshapes-plus-256-few'
cut = ('random mosaic, CutMix and MixGen', 'other numbers of images and of epochs')
