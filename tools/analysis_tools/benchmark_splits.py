"""The paper's table: ``tools/analysis_tools/benchmark_splits.py CONFIG CHECKPOINT --out DIR``.

Evaluates all splits of the config's test data set but ``train``, by the protocol of the config, as
its method was published, and by those of ``--protocols``: at the size of the image unless others
are named. A config that trains on several data sets is tested on each of them; of ``--splits`` each
data set is tested on those that it has. Prints oIoU, mIoU
and Pr@X (of gRefCOCO gIoU, cIoU, ...), and beside them the published score, which ``method.yml`` in
the config's folder has, and the difference. Writes ``DIR/benchmark.csv``, after each split anew.
On several GPUs:
``torchrun --nproc_per_node N tools/analysis_tools/benchmark_splits.py CONFIG CHECKPOINT --out DIR
--launcher pytorch``.
"""

import argparse
import copy
import os
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import yaml
from mmengine.config import Config
from mmengine.dist import is_main_process
from prettytable import PrettyTable

import nemo_mmseg  # noqa: F401  (registers our classes, whether or not the config asks for it)
from nemo_mmseg.apis.evaluate import evaluate
from nemo_mmseg.datasets.fingerprint import PUBLISHED_SPLITS
from nemo_mmseg.datasets.parquet_refcoco import PUBLISHED as PUBLISHED_NAMES
from nemo_mmseg.evaluation.predictions import write_csv
from nemo_mmseg.utils.atomic_write import check_folder_path
from nemo_mmseg.utils.config import (
    add_config_arguments,
    add_run_arguments,
    find_config,
    leaf_datasets,
    load_config,
    loaded_datasets,
)
from nemo_mmseg.utils.dist import leave_process_group
from nemo_mmseg.utils.split_file import read_splits

SPLITS = ('val', 'testA', 'testB', 'test')
# Those that every network can be tested by; ReLA's needs two channels.
PROTOCOLS = ('OriginalProtocol', 'CRISProtocol', 'LAVTProtocol', 'CGFormerProtocol')
# What tells data sets of one layout apart.
FILES = ('data_root', 'ann_file', 'split_file')
# What a tested data set takes of the test data set, and what it leaves out of the trained one.
OF_TEST = ('pipeline', 'group_by', 'test_mode', 'split')
NOT_TESTED = (*OF_TEST, 'leak_guard', 'indices', 'mask_file')
# The splits of a published row, by the number of its values.
PUBLISHED = {1: SPLITS[:1], 2: ('val', 'test'), 3: SPLITS[:3]}
# NETWORK_GPUSxbBATCH-LENGTH_DATA-HEIGHTxWIDTH
NAME = re.compile(r'(?P<network>.+)_\d+xb\d+-\d+[ei]_(?P<data>.+)-\d+x\d+')
SCORES = re.compile(r'(\w+) (\d+\.\d+(?: / \d+\.\d+)*)')
SAME = dict(cIoU='oIoU', oIoU='cIoU')  # two names of one measure


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="The paper's table of a trained network")
    add_config_arguments(parser)
    parser.add_argument(
        'checkpoint', nargs='?', help='checkpoint file; none for a network used as published'
    )
    parser.add_argument('--out', required=True, help='folder for benchmark.csv')
    parser.add_argument('--splits', nargs='+', help='default: all but train, in the usual order')
    parser.add_argument(
        '--protocols',
        nargs='+',
        choices=PROTOCOLS,
        default=PROTOCOLS[:1],
        help='by which to test beside the protocol of the config (default: OriginalProtocol)',
    )
    add_run_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Evaluate each split by each protocol, print the table and write it."""
    args = parse_args()
    if args.checkpoint is not None and not os.path.isfile(args.checkpoint):
        raise FileNotFoundError(f'there is no checkpoint {args.checkpoint}')
    check_folder_path(args.out)
    cfg = load_config(args)
    cfg.load_from, cfg.resume = None, False
    runs = runs_of(datasets_to_test(cfg), args.splits)
    published = published_scores(Path(find_config(args.config)))
    rows, path = [], Path(args.out) / 'benchmark.csv'
    for protocol in protocols_of(cfg, args.protocols):
        own = protocol == cfg.model.test_cfg.protocol
        for dataset, split in runs:
            one = copy.deepcopy(cfg)
            one.model.test_cfg.protocol, one.test_dataloader.dataset = protocol, dataset
            metrics = evaluate(one, args.checkpoint, split, None)
            scores = published.get(split) if own else None
            rows.append(row_of(protocol, data_name(dataset), split, metrics, scores))
            if is_main_process():
                write_csv(path, rows)
    if is_main_process():
        print(f'{table_of(rows)}\n{path}')
    leave_process_group()


def datasets_to_test(cfg: Config) -> list[dict]:
    """Return the configs of the data sets to test on.

    They are the test data set, or, where a config trains on several data sets, those: each of its
    own class and with its own files, with the pipeline and grouping of the test data set.

    Args:
        cfg: Config of the run.

    Raises:
        ValueError: The config trains on one data set, and the test data set is a wrapper.
    """
    test = cfg.test_dataloader.dataset
    trained = [dataset for _, dataset in loaded_datasets(cfg, ['train'])]
    files = [{key: one[key] for key in FILES if key in one} for one in trained]
    different = [one for i, one in enumerate(files) if one not in files[:i]]
    if len(different) > 1:
        return [_as_test(trained[files.index(one)], test) for one in different]
    if list(leaf_datasets(test)) != [test]:
        raise ValueError(f'{test.get("type")} wraps data sets: the splits of one can be tested')
    return [test]


def _as_test(trained: dict, test: dict) -> dict:
    one = {key: value for key, value in trained.items() if key not in NOT_TESTED}
    test = next(leaf_datasets(test))
    return type(test)(one, **{key: test[key] for key in OF_TEST if key in test})


def data_name(dataset: dict) -> str:
    """Return the name of a data set in the table: its split file, else its file."""
    return dataset.get('split_file') or dataset.get('ann_file') or dataset['type']


def runs_of(datasets: Sequence[dict], named: Sequence[str] | None = None) -> list[tuple[dict, str]]:
    """Return what is evaluated: data sets, each with one of its splits.

    Args:
        datasets: Their configs.
        named: Splits to test on; each data set is tested on those that it has. Defaults to None:
            those of each data set that usually are tested on.

    Raises:
        ValueError: No data set has a split that is named; or none are named, and those of a data
            set are not known or none of the usual ones.
    """
    known = [(dataset, splits_of(dataset)) for dataset in datasets]
    told = '; '.join(
        f'{data_name(one)}: {"not known" if splits is None else sorted(splits)}'
        for one, splits in known
    )
    for split in named or ():
        if not any(splits is None or split in splits for _, splits in known):
            raise ValueError(f'no data set has the split {split!r}; there are {told}')
    runs = []
    for dataset, splits in known:
        if splits is None:
            found = named
        else:
            found = [split for split in named or SPLITS if split in splits]
        if not found and not named:
            raise ValueError(f'which splits to test on is not known ({told}): use --splits')
        runs += [(dataset, split) for split in found]
    return runs


def splits_of(dataset: dict) -> set[str] | None:
    """Return all splits of a data set: as published, of Parquet; else those in its file or files.

    Args:
        dataset: Config of the data set.

    Returns:
        Their names; None for a data set of another package that has no ``split_file``.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: The file is damaged.
    """
    kind = dataset.get('type')
    if kind == 'RefCOCOMDataset':
        return set(PUBLISHED_SPLITS['refcoco-m'])
    if kind == 'ParquetRefCOCODataset':
        return set(PUBLISHED_SPLITS[PUBLISHED_NAMES[dataset['dataset']]])
    key = 'ann_file' if kind == 'ReferringJSONDataset' else 'split_file'
    if key not in dataset:
        return None
    file = os.path.join(dataset.get('data_root') or '', dataset[key])
    if '{split}' in file:  # ReferIt has a file for each
        return {one for one in ('train', *SPLITS) if os.path.isfile(file.replace('{split}', one))}
    return {split for split, _ in read_splits(file)}


def protocols_of(cfg: Config, names: Sequence[str] = PROTOCOLS[:1]) -> list[dict]:
    """Return the protocol of a config and, with their defaults, those that are named.

    Args:
        cfg: Config of the run.
        names: Registered names. One that is the config's own protocol is not returned twice.
    """
    own = cfg.model.test_cfg.protocol
    return [own, *(one for one in (dict(type=name) for name in names) if one != own)]


def published_scores(config: Path) -> dict[str, dict[str, float]]:
    """Return the published scores of a config, as ``method.yml`` beside it has them.

    Args:
        config: The config file; those that are not this package's have no published scores.

    Returns:
        Scores by measure, by split.
    """
    name, file = NAME.fullmatch(config.stem), config.parent / 'method.yml'
    if name is None or not file.is_file():
        return {}
    collections = yaml.safe_load(file.read_text())
    collection = next((one for one in collections if fnmatch(config.name, one['Configs'])), {})
    text = collection.get('Published', {}).get(name['network'], {}).get(name['data'], '')
    found: dict[str, dict[str, float]] = {}
    # What is in brackets is said of another network.
    for measure, values in SCORES.findall(text.split('(')[0]):
        numbers = [float(value) for value in values.split(' / ')]
        for split, number in zip(PUBLISHED[len(numbers)], numbers):
            found.setdefault(split, {})[measure] = number
    return found


def row_of(
    protocol: dict,
    data: str,
    split: str,
    metrics: dict[str, float],
    published: dict[str, float] | None,
) -> dict[str, object]:
    """Make a row of the table.

    Args:
        protocol: Config of the protocol.
        data: Name of the data set.
        split: Name of the split.
        metrics: What was measured; measures of slices and of parts are left out.
        published: Scores by measure, or None.

    Returns:
        The cells by column; what is not known is None.
    """
    options = ', '.join(f'{key}={value}' for key, value in protocol.items() if key != 'type')
    name = f'{protocol["type"]}({options})' if options else protocol['type']
    whole = {key: value for key, value in metrics.items() if '/' not in key and key != 'images'}
    expressions = int(whole.pop('expressions'))
    row: dict[str, object] = dict(protocol=name, data=data, split=split)
    row.update(expressions=expressions, **whole)
    row.update(published=None, difference=None)
    texts, differences = [], []
    for measure, score in (published or {}).items():
        ours = whole[measure if measure in whole else SAME[measure]]
        texts.append(f'{measure} {score:.2f}')
        differences.append(f'{ours - score:+.2f}')
    if texts:
        row.update(published=', '.join(texts), difference=', '.join(differences))
    return row


def table_of(rows: Sequence[dict]) -> str:
    """Return the rows as a text to print."""
    table = PrettyTable(list(rows[0]))
    for row, after in zip(rows, [*rows[1:], None]):
        known = ['' if cell is None else cell for cell in row.values()]
        cells = [f'{cell:.2f}' if isinstance(cell, float) else cell for cell in known]
        parts = 'protocol', 'data'
        ends = after is not None and any(after[part] != row[part] for part in parts)
        table.add_row(cells, divider=ends)
    return table.get_string()


if __name__ == '__main__':
    main()
