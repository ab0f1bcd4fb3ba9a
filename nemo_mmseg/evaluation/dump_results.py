"""Write what was predicted for each expression: a mask file and a JSON record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmseg.registry import METRICS

from nemo_mmseg.utils.atomic_write import check_folder_path

from .iou import count_samples, image_name, masks_of
from .predictions import describe_mask, mask_scores, resize_mask, write_image, write_json
from .scores import PREDICTIONS, ExpressionScores, NoTargetRule


@METRICS.register_module()
class DumpReferringResults(BaseMetric):
    """Write a PNG mask per expression and one ``predictions.json`` into a folder.

    The masks have the size of the original image and are named ``masks/<sent_id>.png``.
    ``predictions.json`` holds ``dataset``, ``num_expressions``, ``empty_union``, ``tie``,
    ``no_target_rule`` and ``predictions``, a list of records sorted by ``sent_id``. The
    ``predictions.json`` of an earlier run is deleted first and the new one is written last, so all
    its masks are there. A record has:

    - ``sent_id``, ``ref_id``, ``image_id``, ``image``, ``expression``, ``num_distractors``;
    - ``intersection`` and ``union`` (pixels), ``iou`` (0..1) and ``target_area`` (share of the
      image, 0..1), as the metric counts them, at the size at which masks are compared. They are
      None without ground truth;
    - with a ``no_target_rule``, ``no_target`` and ``predicted_no_target``. The gIoU is then the
      mean of ``iou``. The mask is what the network drew, even where it predicts no target;
    - ``mask`` (its file), ``area`` (pixels), ``bbox``, ``rle`` and, if there are probabilities,
      ``score``.

    Args:
        out_dir: Folder to write to, made if missing; all ranks must see it.
        empty_union: See :class:`ReferringIoU`. Defaults to 1.0.
        tie: Noted in the file for whoever counts Pr@X from it. Defaults to ``'>='``.
        ignore_index: See :class:`ReferringIoU`. Defaults to 255.
        no_target_rule: For expressions that may have no target, the arguments of
            :class:`NoTargetRule` as a dict, ``{}`` for its defaults. None where each expression has
            a target. Defaults to None.
        **kwargs: See :class:`ReferringIoU`.
    """

    default_prefix = ''

    def __init__(
        self,
        out_dir: str,
        empty_union: float = 1.0,
        tie: str = '>=',
        ignore_index: int | None = 255,
        no_target_rule: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.out_dir = Path(out_dir)
        check_folder_path(out_dir)  # before the run, not after it
        self.empty_union = float(empty_union)
        self.tie = tie
        self.ignore_index = ignore_index
        self.rule = None if no_target_rule is None else NoTargetRule(**no_target_rule)
        self._named: dict[int, tuple[str, str]] = {}  # image and expression by sent_id

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Write the masks of one batch.

        Args:
            data_batch: Not used; MMEngine passes it.
            data_samples: Data samples as dicts, with ``pred_sem_seg`` and metainfo ``sent_ids``,
                ``expressions`` and ``ori_shape``.

        Raises:
            ValueError: Two expressions have one id.
        """
        if not self.results and is_main_process():
            (self.out_dir / PREDICTIONS).unlink(missing_ok=True)
        for sample in data_samples:
            self.results.append(self._write(sample))

    def _write(self, sample: dict) -> list[dict]:
        """Write the masks of one data sample and return their records."""
        masks = masks_of(sample, 'pred_sem_seg') > 0
        scores = [{}] * len(masks)
        if sample.get('seg_logits') is not None:
            means = mask_scores(masks, masks_of(sample, 'seg_logits'))
            scores = [dict(score=mean) for mean in means]
        masks = masks.cpu().numpy()
        counted = self._count(sample, len(masks))
        names = zip(sample['sent_ids'], sample['expressions'], strict=True)
        records = []
        for index, ((sent_id, expression), mask) in enumerate(zip(names, masks, strict=True)):
            record = dict(
                sent_id=int(sent_id),
                ref_id=_integer(sample.get('ref_ids'), index),
                image_id=_integer([sample.get('image_id')], 0),
                image=image_name(sample),
                expression=expression,
                num_distractors=_integer(sample.get('num_distractors'), index),
            )
            self._refuse_collision(record)
            full = resize_mask(mask, sample['ori_shape'][:2])
            file = f'masks/{sent_id}.png'
            write_image(self.out_dir / file, full)
            about = dict(mask=file, **describe_mask(full))
            records.append({**record, **counted[index], **about, **scores[index]})
        return records

    def _count(self, sample: dict, num: int) -> list[dict]:
        """Count each of the ``num`` expressions of a data sample."""
        if sample.get('gt_sem_seg') is None:
            return [dict.fromkeys(('intersection', 'union', 'iou', 'target_area'))] * num
        counts = count_samples([sample], self.ignore_index)[0]
        scores = ExpressionScores.of_sample(sample, counts, self.rule, self.empty_union)
        keys = ['intersection', 'union', 'iou', 'target_area']
        if self.rule is not None:
            keys += ['no_target', 'predicted_no_target']
        columns = [getattr(scores, key).tolist() for key in keys]
        return [dict(zip(keys, row)) for row in zip(*columns)]

    def _refuse_collision(self, record: dict) -> None:
        """Refuse two expressions of one id: the second mask would overwrite the first.

        The same expression may come twice: samplers repeat items to give all ranks as many.
        """
        this = record['image'], record['expression']
        other = self._named.setdefault(record['sent_id'], this)
        if other != this:
            raise ValueError(
                f'sent_id {record["sent_id"]} belongs to {other} and to {this}. The ids of several '
                'data sets collide: write the results of one data set at a time'
            )

    def compute_metrics(self, results: list[list[dict]]) -> dict:
        """Write ``predictions.json``.

        Args:
            results: The records of all data samples of all ranks.

        Returns:
            Nothing to report: an empty dict.

        Raises:
            ValueError: Two expressions have one id.
        """
        records = [record for sample in results for record in sample]
        for record in records:  # those of the other ranks too
            self._refuse_collision(record)
        content = dict(
            dataset=(self.dataset_meta or {}).get('dataset_name'),
            num_expressions=len(records),
            empty_union=self.empty_union,
            tie=self.tie,
            no_target_rule=None if self.rule is None else asdict(self.rule),
            predictions=sorted(records, key=lambda record: record['sent_id']),
        )
        write_json(self.out_dir / PREDICTIONS, content)
        self._named.clear()
        print_log(f'{len(records)} masks and {PREDICTIONS} are in {self.out_dir}', logger='current')
        return {}


def _integer(values: Sequence | None, index: int) -> int | None:
    return None if values is None or values[index] is None else int(values[index])
