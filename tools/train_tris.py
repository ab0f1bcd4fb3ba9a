"""All of TRIS with one command, from expressions to a network: ``train_tris.py PIPELINE``.

PIPELINE is a config such as ``tris_r50_refcoco`` (``configs/*/pipelines/``), which names a config
for each network. The stages: training of stage 1, response maps, confidence labels, training of the
affinity network, pseudo masks, training of stage 2, scores, and a page, ``WORK_DIR/index.html``,
which shows what each of them made.

The same command continues a run that was stopped. A stage that is finished, and whose inputs did
not change, is passed over.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

# Works from a checkout that is not installed, too.
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).parent)]
from analysis_tools.tris_page import print_scores, write_tris_page  # noqa: E402

import nemo_mmseg  # noqa: F401, E402  (registers our classes)
from nemo_mmseg.pseudo_labels.annotations import images_of  # noqa: E402
from nemo_mmseg.pseudo_labels.make import data_set_of  # noqa: E402
from nemo_mmseg.pseudo_labels.pipeline_settings import (  # noqa: E402
    NETWORKS,
    override,
    settings_of,
)
from nemo_mmseg.pseudo_labels.proposals import ProposalFile  # noqa: E402
from nemo_mmseg.pseudo_labels.response_maps import ResponseMaps  # noqa: E402
from nemo_mmseg.pseudo_labels.score import score_pseudo_masks, score_response_maps  # noqa: E402
from nemo_mmseg.utils.atomic_write import write_text  # noqa: E402
from nemo_mmseg.utils.config import (  # noqa: E402
    add_config_arguments,
    find_config,
    leaf_datasets,
    load_config,
)
from nemo_mmseg.utils.digests import digest_of_file  # noqa: E402
from nemo_mmseg.utils.file_lock import only_one  # noqa: E402
from nemo_mmseg.utils.run_tool import run_tool  # noqa: E402
from nemo_mmseg.utils.stage_inputs import (  # noqa: E402
    data_sets_in,
    files_of,
    learned_with,
    part_of,
)
from nemo_mmseg.utils.stages import run_stage  # noqa: E402


class Pipeline:
    """The stages of TRIS, their configs and the folder that they share.

    Args:
        settings: Config with a dict for each of ``stage1``, ``affinity`` and ``stage2``:

            - ``config``: file or name of the network's config;
            - ``options``: what it overrides there, by dotted keys;
            - ``checkpoint``: trained weights; then the network is not trained.

            Beside them, all optional: ``data_root``, for the configs of both stages;
            ``seed`` of all trainings; ``checkpoint``, which of a training is used, ``'best'`` or
            ``'last'``; ``splits`` to score; ``proposals``, a file of masks to choose from;
            ``workers`` that make labels and masks; ``compare``, by name such dicts as those of the
            networks.
        work_dir: Folder of everything that is made.

    Raises:
        FileNotFoundError: There is no such config, checkpoint or file of proposals.
        ValueError: A setting is missing, unknown or out of range.
    """

    def __init__(self, settings: Config, work_dir: str) -> None:
        self.settings, self.work_dir = settings_of(settings), Path(work_dir).resolve()
        self.maps = self.work_dir / 'response_maps' / 'response_maps.safetensors'
        self.labels = self.work_dir / 'confidence_labels' / 'confidence_labels.json'
        self.masks = self.work_dir / 'pseudo_masks' / 'instances.json'
        # All of them now: a wrong name shows before hours are spent.
        self.configs = {name: self._read(self.settings[name]) for name in NETWORKS}
        compared = self.settings['compare']
        self.compared = {name: self._read(part) for name, part in compared.items()}
        self._connect()
        self.seconds: dict[str, float] = {}
        self._digests: dict[str, str] = {}

    def _read(self, part: dict) -> Config:
        cfg = Config.fromfile(find_config(part['config']))
        if self.settings['data_root'] is not None:
            for dataset in data_sets_in(cfg):
                dataset['data_root'] = f'{self.settings["data_root"]}/'
        if self.settings['seed'] is not None:
            cfg.merge_from_dict({'randomness.seed': self.settings['seed']})
        override(cfg, part.get('options', {}))
        if self.settings['checkpoint'] == 'last':  # no validation: it would read masks
            cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
            cfg.default_hooks.checkpoint.save_best = None
        return cfg

    def _connect(self) -> None:
        """Let each network read what the stage before it made."""
        data = next(leaf_datasets(self.configs['stage1'].test_dataloader.dataset))
        images = Path(data.get('data_root') or '', data['data_prefix']['img_path']).resolve()
        for dataset in data_sets_in(self.configs['affinity']):
            dataset.update(ann_file=str(self.labels), data_root='')
            dataset['data_prefix'] = dict(img_path=str(images))
        for dataset in leaf_datasets(self.configs['stage2'].train_dataloader.dataset):
            # In the JSON form the file with the expressions has the annotated masks, too.
            is_json = dataset['type'] == 'ReferringJSONDataset'
            dataset['mask_file' if is_json else 'ann_file'] = str(self.masks)

    def run(self, compare: bool = False) -> dict[str, dict[str, dict[str, float]]]:
        """Run what is not finished.

        Args:
            compare: Whether to train and score what the pipeline compares with, too.

        Returns:
            Scores by name of what is scored, split and measure; also in ``scores.json``.
        """
        self.check_data()
        stage1 = self.train('stage1', self.configs['stage1'])
        self.make_maps(stage1)
        self.make_labels()
        affinity = self.train('affinity', self.configs['affinity'], label_file=self.labels)
        self.make_masks(affinity)
        stage2 = self.train('stage2', self.configs['stage2'], pseudo_masks=self.masks)
        scores = self.scores(stage1, stage2)
        for name, cfg in self.compared.items() if compare else ():
            folder = f'compare_{"".join(c if c.isalnum() else "_" for c in name)}'
            checkpoint = self.train(folder, cfg) if cfg.get('train_dataloader') else None
            scores[name] = self.test(f'{folder}_scores', cfg, checkpoint)
        write_text(self.work_dir / 'scores.json', json.dumps(scores, indent=1))
        write_tris_page(
            self.work_dir / 'index.html',
            data_set_of(self.configs['stage1'], self.split),
            ResponseMaps(self.maps),
            self.masks,
            (self.configs['stage2'], stage2),
            {name: self.work_dir / f'{name}_scores' for name in ('stage1', 'prms', 'stage2')},
            data_set_of(self.configs['stage1'], self.settings['splits'][0]),
            scores,
            self.seconds,
        )
        return scores

    def check_data(self) -> None:
        """Refuse now what the last stages could not read."""
        networks = [self.configs['stage1'], self.configs['stage2']]
        for cfg in networks:
            for split in self.settings['splits']:
                data_set_of(cfg, split)
        dataset = data_set_of(networks[0], self.split)
        if self.settings['proposals'] is not None:
            ProposalFile(self.settings['proposals']).check(images_of(dataset))

    @property
    def split(self) -> str:
        """The split that is learned from."""
        return self.configs['stage1'].get('response_maps', {}).get('split', 'train')

    def stage(self, name: str, inputs: dict[str, Any], work: Any, output: Any) -> None:
        """Run a stage in its folder of the work folder.

        Args:
            name: Name of the stage and its folder.
            inputs: What it depends on: a config, a file by its path, or a plain setting.
            work: Called without arguments.
            output: The file that it ends with, or a function that finds it.
        """
        find = output if callable(output) else lambda: output
        known = {key: self._digest(value) for key, value in inputs.items() if value is not None}
        self.seconds[name] = run_stage(self.work_dir / name, known, work, find)

    def _digest(self, value: Any) -> str:
        if isinstance(value, Config):
            files = [str(file) for file in files_of(value) if self.work_dir not in file.parents]
            for file in files:  # of the data set: they do not change while this runs
                self._digests.setdefault(file, digest_of_file(file))
            digests = {file: self._digests[file] for file in files}
            text = value.pretty_text + json.dumps(digests, sort_keys=True)
            return hashlib.sha256(text.encode()).hexdigest()
        return digest_of_file(value) if isinstance(value, Path) else str(value)

    def write_config(self, name: str, cfg: Config) -> Path:
        """Write a config for the tools and return its file."""
        file = self.work_dir / 'configs' / f'{name}.py'
        write_text(file, cfg.pretty_text)
        return file

    def train(self, name: str, cfg: Config, **inputs: Any) -> Path:
        """Train a network and return the checkpoint, or the one that the pipeline names."""
        given = self.settings.get(name, {}).get('checkpoint')
        if given is not None:
            return Path(given).resolve()
        file, folder = self.write_config(name, cfg), self.work_dir / name

        def checkpoint() -> Path:
            best = sorted(folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
            if best and self.settings['checkpoint'] == 'best':
                return best[-1]
            return folder / Path((folder / 'last_checkpoint').read_text().strip()).name

        def work() -> None:
            run_tool('train.py', file, '--work-dir', folder, '--resume')

        inputs.update(config=learned_with(cfg), use=self.settings['checkpoint'])
        self.stage(name, inputs, work, checkpoint)
        return checkpoint()

    def make_maps(self, checkpoint: Path) -> None:
        """Make the response maps of the training split."""
        cfg = self.configs['stage1']
        arguments = [self.write_config('stage1', cfg), checkpoint, '--out', self.maps]
        self.stage(
            'response_maps',
            dict(
                config=part_of(cfg, 'model', 'test_dataloader', 'response_maps'),
                checkpoint=checkpoint,
            ),
            lambda: run_tool('pseudo_labels/make_response_maps.py', *arguments),
            self.maps,
        )

    def make_labels(self) -> None:
        """Make the labels that the affinity network learns from."""
        cfg = self.configs['stage1']
        arguments = [self.write_config('stage1', cfg), self.maps, self.labels]
        arguments += ['--workers', self.settings['workers']]
        self.stage(
            'confidence_labels',
            dict(config=part_of(cfg, 'test_dataloader'), response_maps=self.maps),
            lambda: run_tool('pseudo_labels/make_confidence_labels.py', *arguments),
            self.labels,
        )

    def make_masks(self, affinity: Path) -> None:
        """Make the masks that stage 2 learns."""
        cfg, proposals = self.configs['stage1'], self.settings['proposals']
        network = self.write_config('affinity', self.configs['affinity'])
        arguments = [self.write_config('stage1', cfg), self.maps, self.masks]
        arguments += ['--affinity', network, affinity, '--workers', self.settings['workers']]
        arguments += [] if proposals is None else ['--proposals', proposals]
        self.stage(
            'pseudo_masks',
            dict(
                config=part_of(cfg, 'test_dataloader'),
                response_maps=self.maps,
                affinity=affinity,
                proposals=None if proposals is None else Path(proposals),
            ),
            lambda: run_tool('pseudo_labels/make_masks.py', *arguments),
            self.masks,
        )

    def test(self, name: str, cfg: Config, checkpoint: Path | None) -> dict[str, dict[str, float]]:
        """Score a network on the splits, and return the measures by split."""
        folder, splits = self.work_dir / name, self.settings['splits']
        arguments = [self.write_config(name, cfg), *([] if checkpoint is None else [checkpoint])]
        arguments += ['--work-dir', folder / 'logs', '--out', folder, '--splits', *splits]
        self.stage(
            name,
            dict(
                config=part_of(cfg, 'model', 'test_dataloader', 'test_evaluator', 'test_cfg'),
                checkpoint=checkpoint,
                splits=' '.join(splits),
            ),
            lambda: run_tool('test.py', *arguments),
            folder / splits[-1] / 'metrics.json',
        )
        return {s: json.loads((folder / s / 'metrics.json').read_text()) for s in splits}

    def scores(self, stage1: Path, stage2: Path) -> dict[str, dict[str, dict[str, float]]]:
        """Score both networks on the splits, maps and masks on the split that was learned from."""
        cfg = Config(self.configs['stage1'].to_dict())
        scores = {'stage 1, single maps': self.test('stage1_scores', cfg, stage1)}
        if 'response_maps' in cfg:
            cfg.model.test_cfg.protocol = dict(
                type='SelectedMapProtocol',
                selection=cfg.response_maps.selection,
                protocol=cfg.model.test_cfg.protocol,
            )
            scores['stage 1, PRMS'] = self.test('prms_scores', cfg, stage1)
        scores['stage 2'] = self.test('stage2_scores', self.configs['stage2'], stage2)
        file = self.work_dir / 'labels_scores' / 'metrics.json'
        threshold = self.configs['stage1'].model.test_cfg.protocol.get('threshold', 0)

        def work() -> None:
            dataset = data_set_of(self.configs['stage1'], self.split)
            found = dict(
                maps=score_response_maps(dataset, ResponseMaps(self.maps), threshold),
                masks=score_pseudo_masks(dataset, self.masks),
            )
            write_text(file, json.dumps(found))

        inputs = dict(
            config=part_of(cfg, 'model', 'test_dataloader'),
            response_maps=self.maps,
            pseudo_masks=self.masks,
        )
        self.stage('labels_scores', inputs, work, file)
        found = json.loads(file.read_text())
        scores['response maps'] = {self.split: found['maps']}
        scores['pseudo masks'] = {self.split: found['masks']}
        return scores


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train TRIS, all stages')
    add_config_arguments(parser)
    parser.add_argument('--work-dir', help='folder of the results (default: work_dirs/<its name>)')
    parser.add_argument(
        '--compare', action='store_true', help='score what the pipeline compares with, too'
    )
    return parser.parse_args()


def main() -> int:
    """Run the stages; an error is one line and exit code 1."""
    args = parse_args()
    init_default_scope('mmseg')
    try:
        settings = load_config(args)
        pipeline = Pipeline(settings, settings.work_dir)
        with only_one(pipeline.work_dir / '.lock', 0, f'write to {pipeline.work_dir}'):
            print_scores(pipeline.run(args.compare))
    except subprocess.CalledProcessError as error:
        tool = ' '.join(map(str, error.cmd[3:]))
        print(f'train_tris: a stage failed, see above: {tool}', file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f'train_tris: {error}', file=sys.stderr)
        return 1
    total = sum(pipeline.seconds.values())
    print(' '.join(f'{name} {value:.0f} s,' for name, value in pipeline.seconds.items()))
    print(f'train_tris: {total / 60:.1f} minutes; open {pipeline.work_dir / "index.html"}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
