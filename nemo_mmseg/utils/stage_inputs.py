"""What of a config, and of the files that it names, a stage of a long computation depends on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config


def part_of(cfg: Config, *keys: str) -> Config:
    """Return what a config has of some keys: what a stage depends on."""
    return Config({key: cfg[key] for key in keys if key in cfg})


def learned_with(cfg: Config) -> Config:
    """Return a config without what its training does not depend on: how the network is tested."""
    cfg = Config(cfg.to_dict())
    for key in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        cfg.pop(key, None)
    if cfg.get('val_dataloader') is None:
        cfg.model.pop('test_cfg', None)
    return cfg


def data_sets_in(value: Any) -> Iterator[dict]:
    """Yield the configs of all data sets in a config, those that hooks name included."""
    if isinstance(value, (dict, Config)):
        if 'ann_file' in value and 'type' in value:
            yield value
        for inner in value.values():
            yield from data_sets_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from data_sets_in(inner)


def files_of(cfg: Config) -> list[Path]:
    """Return the annotation files that a config reads and that exist, sorted."""
    files = {
        Path(dataset.get('data_root') or '', dataset[key]).resolve()
        for dataset in data_sets_in(cfg)
        for key in ('ann_file', 'split_file', 'mask_file')
        if dataset.get(key)
    }
    return sorted(file for file in files if file.is_file())
