"""What a pipeline of TRIS may say, checked before hours are spent."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

NETWORKS = ('stage1', 'affinity', 'stage2')
# What a pipeline may set beside them, with the defaults.
SETTINGS = dict(
    data_root=None,
    seed=None,
    checkpoint='last',
    splits=('val',),
    proposals=None,
    workers=0,
    compare={},
)
# What it may say of a network.
NETWORK_SETTINGS = ('config', 'options', 'checkpoint')
# What an option may set although a config has no such entry.
RUNNER_SETTINGS = frozenset(inspect.signature(Runner).parameters)


def settings_of(cfg: Config) -> dict[str, Any]:
    """Read the settings of a pipeline.

    Args:
        cfg: See :class:`Pipeline`.

    Returns:
        All settings, with defaults.

    Raises:
        FileNotFoundError: A file that it names is not there.
        ValueError: A setting is missing, unknown or out of range.
    """
    given = {name: cfg[name] for name in cfg if name != 'work_dir'}
    settings = {**SETTINGS, **given}
    networks = {name: given.get(name, {}) for name in NETWORKS} | settings['compare']
    unknown = sorted(given.keys() - SETTINGS.keys() - set(NETWORKS))
    unknown += [
        f'{name}.{key}'
        for name, part in networks.items()
        for key in part
        if key not in NETWORK_SETTINGS
    ]
    missing = [name for name, part in networks.items() if 'config' not in part]
    if unknown or missing:
        raise ValueError(
            f'{cfg.filename} is no pipeline: unknown: {unknown}, without config: {missing}'
        )
    if settings['checkpoint'] not in ('best', 'last'):
        raise ValueError(
            f"{cfg.filename}: checkpoint must be 'best' or 'last', not {settings['checkpoint']!r}"
        )
    for name in ('workers', 'seed'):
        value = settings[name]
        if value is not SETTINGS[name] and (type(value) is not int or value < 0):
            raise ValueError(f'{cfg.filename}: {name} must be a whole number from 0, not {value!r}')
    if isinstance(settings['splits'], str):  # as of a command line that names one
        settings['splits'] = (settings['splits'],)
    files = [settings['proposals'], *(part.get('checkpoint') for part in networks.values())]
    for file in filter(None, files):
        if not Path(file).is_file():
            raise FileNotFoundError(f'{cfg.filename}: there is no file {file}')
    return settings


def override(cfg: Config, options: Mapping[str, Any]) -> None:
    """Override settings of a config.

    Args:
        cfg: The config; changed.
        options: Values by dotted keys, which ``--cfg-options`` may have nested.

    Raises:
        ValueError: There is nothing of that name to override.
    """
    for key, value in options.items():
        if key.split('.')[0] not in RUNNER_SETTINGS | cfg.keys():
            raise ValueError(f'{cfg.filename} has no {key}, which an option shall override')
        try:
            # One by one: together, that of `a` would throw out that of `a.b`.
            cfg.merge_from_dict({key: value})
        except (KeyError, TypeError) as error:
            raise ValueError(f'{cfg.filename}: option {key}: {error.args[0]}') from error
