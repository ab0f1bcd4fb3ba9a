"""A random GroupViT and a random CLIPSeg, as files of the transformers library."""

WORDS = ['the', 'red', 'ring', 'left', 'sky', 'wall', 'a', 'photo', 'of']


def save_transformers(folder):
    """Write the folders `group_vit` and `clip_seg`, as `save_pretrained` does."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {'[PAD]': 0, '[UNK]': 1, '[BOS]': 2}
    vocabulary |= {word: i for i, word in enumerate(WORDS, start=3)} | {'[EOS]': 63}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token='[UNK]'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single='[BOS] $A [EOS]', special_tokens=[('[BOS]', 2), ('[EOS]', 63)]
    )
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token='[PAD]', eos_token='[EOS]', bos_token='[BOS]'
    )
    text = dict(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=12, eos_token_id=63, bos_token_id=2,
        pad_token_id=0,
    )  # fmt: skip
    vision = dict(intermediate_size=32, num_attention_heads=2, image_size=64, patch_size=16)
    torch.manual_seed(0)
    group_vit = transformers.GroupViTModel(
        transformers.GroupViTConfig(
            text_config=text,
            vision_config=dict(
                vision, hidden_size=24, depths=[1, 1, 1], num_hidden_layers=3,
                num_group_tokens=[8, 4, 0], num_output_groups=[8, 4, 0],
            ),
            projection_dim=12, projection_intermediate_dim=16,
        )
    )  # fmt: skip
    clip_seg = transformers.CLIPSegForImageSegmentation(
        transformers.CLIPSegConfig(
            text_config=text,
            vision_config=dict(vision, hidden_size=16, num_hidden_layers=2),
            projection_dim=12, extract_layers=[0, 1], reduce_dim=8,
            decoder_num_attention_heads=2, decoder_intermediate_size=16,
        )
    )  # fmt: skip
    for name, parameter in group_vit.named_parameters():  # else all groups and pixels are alike
        if name.endswith('group_token'):
            torch.nn.init.normal_(parameter.data)
        elif 'assign.q_proj.w' in name or 'assign.k_proj.w' in name:
            parameter.data *= 30
    for name, network in (('group_vit', group_vit), ('clip_seg', clip_seg)):
        network.save_pretrained(folder / name)
        wrapped.save_pretrained(folder / name)
