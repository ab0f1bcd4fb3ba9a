"""Writes what was predicted for each expression: a mask file and a line of JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmseg.registry import METRICS

from .generalized_counts import GeneralizedCounts, NoTargetRule
from .iou import count_sample, image_name, iou_values, masks_of
from .predictions import describe_mask, mask_scores, resize_mask, write_image, write_json
from .scores import PREDICTIONS


@METRICS.register_module()
class DumpReferringResults(BaseMetric):
    """Writes a PNG mask per expression and one `predictions.json` into a folder.

    The masks have the size of the original image and are named `masks/<sent_id>.png`.
    `predictions.json` holds `dataset`, `num_expressions`, `empty_union`, `tie`, `no_target` and
    `predictions`, a list of `sent_id, ref_id, image_id, image, expression, num_distractors,
    intersection, union, iou, target_area, mask, area, bbox, score, rle`, sorted by `sent_id`.
    `intersection` and `union` (pixels), `iou` (0..1) and `target_area` (share of the image, 0..1)
    are what `ReferringIoU` counts, hence at the size at which the protocol compares; they are None
    without truth. `predictions.json` of an earlier run is taken away first and the new one comes
    last: where it lies, all its masks do.

    With `no_target`, records say also `is_empty` (nothing is described) and `said_empty` (the
    network says so), and `intersection`, `union` and `iou` are what `GeneralizedReferringIoU`
    counts: its gIoU is the mean of the `iou`. The mask is what was drawn, whatever was said.

    Args:
        out_dir: Folder to write to, made if missing; all ranks must see it.
        empty_union: IoU where truth and prediction are both empty. Defaults to 1.0.
        tie: `'>='` or `'>'`, noted in the file for who counts Pr@X from it. Defaults to `'>='`.
        ignore_index: See `ReferringIoU`. Defaults to 255.
        no_target: For expressions that may describe nothing: dict of `no_target`, `min_pixels` and
            `score_threshold`, see `GeneralizedReferringIoU`; {} for its defaults. None where each
            has a target. Defaults to None.
        collect_device: `'cpu'` or `'gpu'`. Defaults to `'cpu'`.
        collect_dir: See `ReferringIoU`.
    """

    default_prefix = ''

    def __init__(
        self,
        out_dir: str,
        empty_union: float = 1.0,
        tie: str = '>=',
        ignore_index: int | None = 255,
        no_target: dict | None = None,
        collect_device: str = 'cpu',
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, collect_dir=collect_dir)
        self.out_dir = Path(out_dir)
        if self.out_dir.exists() and not self.out_dir.is_dir():
            raise NotADirectoryError(f'{out_dir} is a file; name a folder for the results')
        self.empty_union = float(empty_union)
        self.tie = tie
        self.ignore_index = ignore_index
        self.rule = None if no_target is None else NoTargetRule(**no_target)
        self._seen: dict[int, tuple] = {}  # by sent_id, to notice names that collide

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Writes the masks of one batch.

        Args:
            data_batch: Not used; MMEngine passes it.
            data_samples: Data samples as dicts, with `pred_sem_seg` and metainfo.
        """
        if not self.results and is_main_process():
            (self.out_dir / PREDICTIONS).unlink(missing_ok=True)
        for sample in data_samples:
            self.results.append(self._write(sample))

    def _write(self, sample: dict) -> list[dict]:
        """Writes the masks of one data sample and returns their records."""
        for key in ('sent_ids', 'expressions', 'ori_shape'):
            if sample.get(key) is None:
                raise KeyError(f'{image_name(sample)}: the data sample has no `{key}`')
        found = masks_of(sample, 'pred_sem_seg') > 0
        masks = found.cpu().numpy()
        if len(masks) != len(sample['sent_ids']):
            raise ValueError(
                f'{image_name(sample)}: {len(masks)} masks for {len(sample["sent_ids"])} '
                'expressions'
            )
        scores = None
        if sample.get('seg_logits') is not None:
            scores = mask_scores(found, masks_of(sample, 'seg_logits'))
        counted = self._counted(sample, len(masks))
        ref_ids, distractors = sample.get('ref_ids'), sample.get('num_distractors')
        records = []
        for index, (mask, counts) in enumerate(zip(masks, counted, strict=True)):
            sent_id = int(sample['sent_ids'][index])
            self._check_name(sent_id, image_name(sample), sample['expressions'][index])
            file = f'masks/{sent_id}.png'
            full = resize_mask(mask, sample['ori_shape'][:2])
            write_image(self.out_dir / file, full)
            record = dict(
                sent_id=sent_id,
                ref_id=None if ref_ids is None else int(ref_ids[index]),
                image_id=None if sample.get('image_id') is None else int(sample['image_id']),
                image=image_name(sample),
                expression=sample['expressions'][index],
                num_distractors=None if distractors is None else int(distractors[index]),
                **counts,
                mask=file,
                **describe_mask(full),
            )
            if scores is not None:
                record['score'] = scores[index]
            records.append(record)
        return records

    def _counted(self, sample: dict, num: int) -> list[dict]:
        """What is counted of each of the `num` expressions of a data sample."""
        if sample.get('gt_sem_seg') is None:
            return [dict.fromkeys(('intersection', 'union', 'iou', 'target_area'))] * num
        counts = count_sample(sample, self.ignore_index, type(self).__name__).cpu().numpy()
        intersection, union, area, pixels = counts.T
        said = [{}] * num
        if self.rule is None:
            iou = iou_values(intersection, union, self.empty_union)
        else:
            counted = GeneralizedCounts.of_sample(sample, counts, self.rule)
            intersection, union, iou = counted.intersection, counted.union, counted.iou
            said = [
                dict(is_empty=bool(is_empty), said_empty=bool(said_empty))
                for is_empty, said_empty in zip(counted.is_empty, counted.said_empty)
            ]
        return [
            dict(
                intersection=int(intersection[row]),
                union=int(union[row]),
                iou=float(iou[row]),
                target_area=float(area[row] / pixels[row]),
                **said[row],
            )
            for row in range(num)
        ]

    def _check_name(self, sent_id: int, image: str, expression: str) -> None:
        """Refuses two expressions of one id: the second mask would overwrite the first.

        The same one twice is none: samplers repeat items to give all ranks as many.
        """
        this = (image, expression)
        other = self._seen.setdefault(sent_id, this)
        if other != this:
            raise ValueError(
                f'sent_id {sent_id} belongs to {other} and to {this}: several data sets whose ids '
                'collide? Write the results of one at a time'
            )

    def compute_metrics(self, results: list[list[dict]]) -> dict:
        """Writes `predictions.json`.

        Args:
            results: The records of all data samples of all ranks.

        Returns:
            Nothing to report: an empty dict.
        """
        records = sorted((record for item in results for record in item), key=_by_sentence)
        for record in records:  # those of the other ranks too
            self._check_name(record['sent_id'], record['image'], record['expression'])
        write_json(
            self.out_dir / PREDICTIONS,
            dict(
                dataset=(self.dataset_meta or {}).get('dataset_name'),
                num_expressions=len(records),
                empty_union=self.empty_union,
                tie=self.tie,
                no_target=None if self.rule is None else asdict(self.rule),
                predictions=records,
            ),
        )
        self._seen.clear()
        print_log(f'{len(records)} masks and {PREDICTIONS} are in {self.out_dir}', logger='current')
        return {}


def _by_sentence(record: dict) -> int:
    return record['sent_id']


def write_results_to(cfg: Config, out_dir: str) -> None:
    """Makes a test run write its results too (`tools/test.py --out`).

    A `ReferringIoU` with `by` writes its slices there, as `difficulty.csv`.

    Args:
        cfg: Config whose `test_evaluator` is changed in place.
        out_dir: See `DumpReferringResults`.
    """
    evaluators = cfg.get('test_evaluator') or []
    evaluators = [evaluators] if isinstance(evaluators, dict) else list(evaluators)
    # what the metric counts, and what it calls an empty answer, is written too
    options: dict[str, Any] = {}
    for evaluator in evaluators:
        if evaluator.get('type') not in ('ReferringIoU', 'GeneralizedReferringIoU'):
            continue
        keys = ('empty_union', 'tie', 'ignore_index')
        options.update({key: evaluator[key] for key in keys if key in evaluator})
        if evaluator['type'] == 'GeneralizedReferringIoU':
            keys = ('no_target', 'min_pixels', 'score_threshold')
            options['no_target'] = {key: evaluator[key] for key in keys if key in evaluator}
    for index, evaluator in enumerate(evaluators):
        if evaluator.get('type') == 'ReferringIoU' and evaluator.get('by'):
            file = str(Path(out_dir) / 'difficulty.csv')
            evaluators[index] = {'csv_file': file, **evaluator}
            break  # a second one would overwrite the file
    evaluators.append(dict(type='DumpReferringResults', out_dir=str(out_dir), **options))
    cfg.test_evaluator = evaluators
