"""Looks whether the runs of an experiment can work at all, before hours are spent on some."""

from __future__ import annotations

import ast
import copy
import difflib
import inspect
import os.path as osp
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner
from mmseg import registry as registries

from nemo_mmseg.datasets.refcoco import RefCOCODataset
from nemo_mmseg.negatives.leak_guard import TEST_SPLITS, split_images

# What the builders take out of a dict before its class sees the rest.
_BUILDERS = (
    'type', '_scope_', '_delete_', 'constructor', 'paramwise_cfg', 'priority',
    'convert_to_iter_based',
)  # fmt: skip
# What MMEngine's runner and its reader of files take from a config beside the runner's arguments.
_READ = (
    'activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval',
    'find_unused_parameters', 'model_wrapper_cfg', 'sync_bn',
)  # fmt: skip
_SUPER = re.compile(r'super\(.*\)\.__init__')
# Of RefCOCO and what is laid out like it, where the file that would tell is not there yet.
_SPLITS = ('train', *TEST_SPLITS)


def merge_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Override settings of a config, but only those that something reads.

    MMEngine's ``merge_from_dict`` adds what it does not find, so that a misspelt key changes
    nothing. Here a key must be in the config, or be an argument of the class that the ``type``
    beside it names (after the merge, for the options may name another one), or at the top be one
    that MMEngine reads. Where that cannot be told, because there is no ``type``, the class is not
    known or takes anything, the key is accepted.

    Args:
        cfg: The config; changed in place.
        options: Dotted keys with their values. What is inside of a value is not looked at.

    Raises:
        ValueError: A key does not exist, goes on below what holds no settings, or would be lost.
    """
    keys = list(options)
    new = [(key, place) for key in keys if (place := _first_missing(cfg, key)) is not None]
    for number, key in enumerate(keys):
        lost = [before for before in keys[:number] if before.startswith(f'{key}.')]
        if lost:  # MMEngine forgets it without a word
            raise ValueError(f'the option {key!r} comes after {lost[0]!r} and would undo it')
    # A copy, because MMEngine writes into the values: rows would get options of other rows.
    cfg.merge_from_dict(copy.deepcopy(dict(options)))
    for key, place in new:
        *parents, name = key.split('.')[: place + 1]
        parent = _inside(cfg, parents)
        if parents:
            known = arguments(parent['type']) if 'type' in parent else None
        else:
            known = {*(arguments(Runner) or ()), *_READ} - {'cfg'}
        if known is None or name in known or name in _BUILDERS:
            continue
        what = f'{".".join(parents)} ({parent["type"]})' if parents else 'the config'
        near = difflib.get_close_matches(name, {*known, *parent} - {name}, n=1)
        hint = f'; did you mean {near[0]!r}?' if near else ''
        raise ValueError(f'the option {key!r} does not exist: {what} has no {name!r}{hint}')


def _first_missing(cfg: Config, key: str) -> int | None:
    """Place of the first part of a dotted key that the config lacks, None if it has all of it."""
    value, parts = cfg, key.split('.')
    for place, part in enumerate(parts):
        if isinstance(value, (list, tuple)):
            if not part.isdigit() or int(part) >= len(value):
                raise ValueError(
                    f'the option {key!r} does not exist: {".".join(parts[:place])} is a list of '
                    f'{len(value)}, which has no {part!r}'
                )
            value = value[int(part)]
        elif isinstance(value, (Config, dict)):
            if part not in value:
                return place
            value = value[part]
        else:
            raise ValueError(
                f'the option {key!r} does not exist: {".".join(parts[:place])} is {value!r}, which '
                'holds no settings'
            )
    return None


def _inside(cfg: Config, parts: list[str]) -> Any:
    value = cfg
    for part in parts:
        value = value[int(part)] if isinstance(value, (list, tuple)) else value[part]
    return value


def arguments(kind: Any) -> set[str] | None:
    """Names of the arguments of a registered class.

    Args:
        kind: The name by which it is registered, or the class itself.

    Returns:
        The names, with those of its bases as far as the arguments are handed on (``**kwargs``); of
        several classes of one name (a transform and a network, say) those of all. None if the
        class is not known, or takes arguments of any name.
    """
    names: set[str] = set()
    classes = list(_registered(kind)) if isinstance(kind, str) else [kind]
    for one in classes:
        found = _arguments(one)
        if found is None:
            return None
        names |= found
    return names if classes else None


def _registered(name: str) -> Iterator[Any]:
    """What has a name in one of MMSegmentation's registries or of those above them."""
    for node in vars(registries).values():
        while isinstance(node, Registry):
            if name in node.module_dict:
                yield node.module_dict[name]
                break
            node = node.parent


def _arguments(kind: Any) -> set[str] | None:
    calls = [kind]
    if inspect.isclass(kind):
        calls = [vars(one)['__init__'] for one in inspect.getmro(kind) if '__init__' in vars(one)]
        calls = calls[:-1] or [lambda: None]  # the last one is object's
    names: set[str] = set()
    for call in calls:
        parameters = inspect.signature(call).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        rest = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
        if not rest:
            return names - {'self'}
        if not _hands_on(call, rest[0]):
            break
    return None


def _hands_on(call: Any, rest: str) -> bool:
    """Whether an ``__init__`` gives its ``**rest`` to that of its base, and uses it for no more."""
    try:
        nodes = list(ast.walk(ast.parse(textwrap.dedent(inspect.getsource(call)))))
    except (OSError, SyntaxError, TypeError):  # no source, as of compiled or generated code
        return False
    uses = [node for node in nodes if isinstance(node, ast.Name) and node.id == rest]
    handed = [
        keyword.value
        for node in nodes
        if isinstance(node, ast.Call) and _SUPER.fullmatch(ast.unparse(node.func))
        for keyword in node.keywords
        if keyword.arg is None
    ]
    return len(uses) == 1 and uses[0] in handed


def check_splits(cfg: Config, splits: tuple[str, ...]) -> None:
    """Look whether the test data set of a config has some splits.

    The file of a data set laid out like RefCOCO tells; where there is none yet, the names that such
    data sets use. Other data sets are taken to have any.

    Args:
        cfg: The config.
        splits: Names of the splits.

    Raises:
        ValueError: It has not.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    if 'split' not in dataset:
        raise ValueError(
            f'splits={splits}: the test data set ({dataset.get("type")}) has no split to choose'
        )
    kinds = list(_registered(dataset.type)) if isinstance(dataset.type, str) else [dataset.type]
    if not any(inspect.isclass(kind) and issubclass(kind, RefCOCODataset) for kind in kinds):
        return
    file = osp.join(dataset.get('data_root') or '', dataset.split_file)
    known = tuple(split_images(file)) if osp.isfile(file) else _SPLITS
    unknown = [split for split in splits if split not in known]
    if unknown:
        raise ValueError(f'{file} has no split {unknown[0]!r}; it has: {", ".join(known)}')
