"""How often mosaics are made, and how hard they are, in each pass over the data."""

from __future__ import annotations

from nemo_mmseg.mining.band import BandRule

from .ramps import Ramp, build_ramp, deciding_passes, is_number, value_at


class MosaicSchedule:
    """Probabilities and band of :class:`NeMoMosaic`, whose arguments these are.

    Args:
        warmup_prob: Number or ramp.
        random_prob: Number or ramp.
        mined_prob: Number or ramp.
        start_epoch: Pass at which mined mosaics begin.
        tau: Number, ramp or None.
        tau_mode: See :class:`nemo_mmseg.mining.BandRule`.
        top_k: Number or ramp.
        i2i_sim_thres: Number, ramp or None.
        keep: Images that the bank stores an expression, where it is known.

    Raises:
        ValueError: Values that are no numbers, probabilities outside [0, 1] or with a sum above 1
            in some pass, a warm-up of no pass or one that ends before its ramp, another ramp that
            is over when ``start_epoch`` comes, or a band that makes no sense in some pass.
    """

    def __init__(
        self,
        warmup_prob: float | dict | Ramp,
        random_prob: float | dict | Ramp,
        mined_prob: float | dict | Ramp,
        start_epoch: int,
        tau: float | dict | Ramp | None,
        tau_mode: str,
        top_k: int | dict | Ramp,
        i2i_sim_thres: float | dict | Ramp | None,
        keep: int | None = None,
    ) -> None:
        self.start_epoch, self.tau_mode, self.keep = start_epoch, tau_mode, keep
        needed = dict(
            warmup_prob=warmup_prob, random_prob=random_prob, mined_prob=mined_prob, top_k=top_k
        )
        thresholds = dict(tau=tau, i2i_sim_thres=i2i_sim_thres)
        self.values = {name: build_ramp(value, name) for name, value in needed.items()}
        for name, value in thresholds.items():
            self.values[name] = None if value is None else build_ramp(value, name)
        if not is_number(start_epoch) or start_epoch < 0 or start_epoch != int(start_epoch):
            raise ValueError(f'start_epoch={start_epoch} must be a pass: 0, 1, 2, ...')
        if keep is not None and not (is_number(keep) and keep >= 1 and keep == int(keep)):
            raise ValueError(f'keep={keep!r} of the bank must be a positive whole number')
        self._check_probabilities()
        self._check_ramps()
        for rule in self.rules():
            rule.check(keep)

    def at(self, name: str, visit: int) -> float | None:
        """A value in a pass."""
        return value_at(self.values[name], visit)

    def _passes(self, *names: str) -> list[int]:
        """Those from ``start_epoch`` on that stand for all, as far as these values go."""
        return deciding_passes([self.values[name] for name in names], self.start_epoch)

    def _check_probabilities(self) -> None:
        names = ('warmup_prob', 'random_prob', 'mined_prob')
        for name in names:
            for visit in deciding_passes([self.values[name]]):
                if not 0 <= self.at(name, visit) <= 1:
                    where = f' in pass {visit}' if isinstance(self.values[name], Ramp) else ''
                    raise ValueError(f'{name}={self.at(name, visit)}{where} is not in [0, 1]')
        if self.start_epoch == 0 and self.values['warmup_prob'] != 0:
            raise ValueError(
                f'warmup_prob={self.values["warmup_prob"]} is for the passes before start_epoch=0, '
                'but there are none (random_prob is for those from it on)'
            )
        for visit in self._passes('random_prob', 'mined_prob'):
            drawn, mined = self.at('random_prob', visit), self.at('mined_prob', visit)
            if drawn + mined > 1 + 1e-9:
                raise ValueError(
                    f'random_prob={drawn} and mined_prob={mined} (in pass {visit}) exclude one '
                    'another, so their sum must be at most 1'
                )

    def _check_ramps(self) -> None:
        for name, value in self.values.items():
            if not isinstance(value, Ramp):
                continue
            if name == 'warmup_prob':
                if not value.reaches(self.start_epoch):
                    raise ValueError(
                        f'{name}={value} does not reach its last value in the passes before '
                        f'start_epoch={self.start_epoch}, the only ones it is for'
                    )
            elif value.corners[-1] <= self.start_epoch:
                raise ValueError(
                    f'{name}={value} is over before start_epoch={self.start_epoch}, but it is for '
                    'the passes from there on'
                )

    @property
    def mines(self) -> bool:
        """Whether any pass has mined mosaics."""
        return any(self.at('mined_prob', visit) > 0 for visit in self._passes('mined_prob'))

    def kind_at(self, visit: int, draw: float) -> str | None:
        """What a sample becomes.

        Args:
            visit: Pass over the data, from 0.
            draw: Uniform number in [0, 1).

        Returns:
            ``'random'``, ``'mined'``, or None for the plain sample.
        """
        if visit < self.start_epoch:
            return 'random' if draw < self.at('warmup_prob', visit) else None
        random_prob = self.at('random_prob', visit)
        if draw < random_prob:
            return 'random'
        return 'mined' if draw < random_prob + self.at('mined_prob', visit) else None

    def rule_at(self, visit: int) -> BandRule:
        """The band in a pass; ramps of counts are rounded."""
        tau, top_k = self.at('tau', visit), self.at('top_k', visit)
        if isinstance(self.values['tau'], Ramp) and self.tau_mode == 'rank':
            tau = round(tau)
        if isinstance(self.values['top_k'], Ramp):
            top_k = round(top_k)
        return BandRule(tau, self.tau_mode, top_k, self.at('i2i_sim_thres', visit))

    def rules(self) -> list[BandRule]:
        """The bands between whose bounds all others lie, in the order of the passes."""
        rules = map(self.rule_at, self._passes('tau', 'top_k', 'i2i_sim_thres'))
        return list(dict.fromkeys(rules))

    def check_cells(self, cells: int) -> None:
        """Refuse bands that can never fill a grid with negatives.

        Random images may fill up a band that is short for some expressions. Were it short for all,
        a mined mosaic would be a random one to a good part, or ``short_band='plain'`` make none.

        Args:
            cells: Of the grid; of several grids the smallest, or the largest if none may be short.

        Raises:
            ValueError: In some pass with mined mosaics there are fewer.
        """
        passes = self._passes('tau', 'top_k', 'i2i_sim_thres', 'mined_prob')
        for rule in [self.rule_at(visit) for visit in passes if self.at('mined_prob', visit) > 0]:
            most = rule.top_k
            if self.keep is not None:
                skipped = (rule.tau or 0) if rule.tau_mode == 'rank' else 0
                most = min(most, self.keep - skipped)
            if most < cells - 1:
                raise ValueError(
                    f'a grid of {cells} cells needs {cells - 1} mined negatives, but {rule} with '
                    f'keep={self.keep} never gives more than {most}'
                )

    def check_passes(self, passes: int) -> None:
        """Refuse a training that is over before a ramp, or before the mined mosaics.

        Args:
            passes: Passes over the data that the training makes.

        Raises:
            ValueError: It is.
        """
        for name, value in self.values.items():
            if isinstance(value, Ramp) and not value.reaches(passes):
                raise ValueError(
                    f'{name}={value} does not reach its last value in the {passes} passes over the '
                    'data of this training'
                )
        if self.mines and self.start_epoch >= passes:
            raise ValueError(
                f'mined mosaics begin at start_epoch={self.start_epoch}, but this training makes '
                f'{passes} passes over the data (0 to {passes - 1})'
            )
