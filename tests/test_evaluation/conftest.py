"""Shared by the tests of evaluation."""

from collections.abc import Callable

import numpy as np
import pytest

from nemo_mmseg.evaluation.scores import ExpressionScores


@pytest.fixture(scope='session')
def table() -> Callable[..., ExpressionScores]:
    """Make a table in which only the given columns matter."""

    def make(num: int, **columns) -> ExpressionScores:
        other = dict(
            intersection=np.ones(num),
            union=np.full(num, 2),
            target_area=np.full(num, 0.1),
            num_distractors=np.zeros(num),
            sent_ids=np.arange(num),
            images=[f'{row}.jpg' for row in range(num)],
            expressions=['thing'] * num,
            datasets=[''] * num,
            no_target=np.zeros(num),
            predicted_no_target=np.zeros(num),
        )
        return ExpressionScores(**{**other, **columns})

    return make
