"""Bootstrap intervals against loops, known variances and their promised coverage."""

from dataclasses import replace

import numpy as np
import pytest

from nemo_mmseg.evaluation.bootstrap import image_weights, paired_bootstrap


@pytest.fixture(scope='module')
def make_run(table):
    def make(image: np.ndarray, intersection: np.ndarray, union: np.ndarray, **rules):
        images = [f'{row}.jpg' for row in image]
        return table(len(image), images=images, intersection=intersection, union=union, **rules)

    return make


@pytest.fixture(scope='module')
def two_runs(make_run):
    def make(rng: np.random.Generator, num_images: int, gain: float = 0.03, shared: float = 0.1):
        """IoU values of 1 to 8 expressions an image; `shared` is what they have in common."""
        image = np.repeat(np.arange(num_images), rng.integers(1, 9, num_images))
        union = rng.integers(900, 4000, len(image))
        first = 0.5 + 0.15 * rng.normal(size=num_images)[image] + 0.1 * rng.normal(size=len(image))
        gains = gain + shared * rng.normal(size=num_images)[image]
        gains += 0.05 * rng.normal(size=len(image))
        values = [np.clip(part, 0, 1) * union for part in (first, first + gains)]
        return make_run(image, values[0], union), make_run(image, values[1], union)

    return make


@pytest.mark.parametrize('tie', ['>=', '>'])
def test_equals_a_loop_over_resamples(make_run, tie: str):
    rng = np.random.default_rng(1)
    image = rng.permutation(np.repeat(np.arange(12), rng.integers(1, 5, 12)))
    union = rng.integers(0, 3, len(image)) * 10  # many empty ones, and IoU exactly at 0.5
    runs = [make_run(image, rng.integers(0, union + 1), union, tie=tie) for _ in range(2)]
    sets = np.stack([np.ones(len(image)), rng.random(len(image)) < 0.3, image == 3, image < 0]) > 0
    result = paired_bootstrap(*runs, sets, thresholds=(0.5, 0.9), resamples=700, level=0.9, seed=5)
    assert result.measures == ('oIoU', 'mIoU', 'Pr@0.5', 'Pr@0.9')

    weights = np.concatenate(list(image_weights(12, 700, seed=5)))
    names = sorted(set(runs[0].images))  # images are numbered by their names
    for row, held in enumerate(sets):
        drawn = []
        for weight in weights:
            rows = [
                expression
                for name, times in zip(names, weight)
                for expression in range(len(image))
                if runs[0].images[expression] == name and held[expression]
                for _ in range(int(times))
            ]
            if rows:
                a, b = (run.take(np.array(rows)).summary((0.5, 0.9)) for run in runs)
                drawn.append([b[key] - a[key] for key in a])
        for values, run in zip((result.first, result.second), runs):
            expected = list(run.summary((0.5, 0.9), where=held).values())
            assert values[row] == pytest.approx(expected, nan_ok=True)
        if row < 2:
            expected = np.quantile(drawn, [0.05, 0.95], axis=0)
            assert np.stack([result.low[row], result.high[row]]) == pytest.approx(expected)
        else:  # one image, no image: nothing to resample
            assert np.isnan(result.low[row]).all() and np.isnan(result.high[row]).all()


def test_several_seeds_are_their_mean_in_each_draw(make_run):
    rng = np.random.default_rng(2)
    image = np.repeat(np.arange(9), rng.integers(1, 5, 9))
    union = rng.integers(1, 30, len(image))
    firsts, seconds = (
        [make_run(image, rng.integers(0, union + 1), union) for _ in range(3)] for _ in 'ab'
    )
    held = rng.random(len(image)) < 0.6
    sets = np.stack([np.ones(len(image), bool), held])
    result = paired_bootstrap(firsts, seconds, sets, (0.5,), resamples=400, seed=3)
    weights = np.concatenate(list(image_weights(9, 400, seed=3)))[:, image]  # (400, E)
    for row, held in enumerate(sets):
        drawn, whole = np.zeros((400, 3)), np.zeros((2, 3))
        for side, runs in enumerate((firsts, seconds)):
            for run in runs:
                iou = run.intersection / run.union
                for column, (above, below) in enumerate(
                    [(run.intersection, run.union), (iou, 1 + 0 * iou), (iou >= 0.5, 1 + 0 * iou)]
                ):
                    value = (weights @ (above * held)) / (weights @ (below * held))
                    drawn[:, column] += (2 * side - 1) * 100 * value / 3
                    whole[side, column] += 100 * above[held].sum() / below[held].sum() / 3
        expected = np.quantile(drawn, [0.025, 0.975], axis=0)
        np.testing.assert_allclose([result.low[row], result.high[row]], expected)
        np.testing.assert_allclose([result.first[row], result.second[row]], whole)
    with pytest.raises(ValueError, match='3 runs cannot be compared with 2'):
        paired_bootstrap(firsts, seconds[:2])


def test_resamples_draw_each_image_as_often():
    weights = np.concatenate(list(image_weights(7, 1200, seed=0)))
    assert weights.shape == (1200, 7) and (weights.sum(1) == 7).all()
    assert weights.mean(0) == pytest.approx(np.ones(7), abs=0.1)
    assert weights.var(0) == pytest.approx(np.full(7, 6 / 7), abs=0.12)  # binomial (7, 1/7)


@pytest.mark.parametrize('copies', [1, 6])
def test_known_variance_of_a_mean(make_run, copies: int):
    # equal expressions of an image add no information: the error is that of the images' mean
    rng, num = np.random.default_rng(2), 400
    union = np.full(num * copies, 100_000)
    values = [rng.integers(30_000, 90_000, num) for _ in range(2)]
    image = np.repeat(np.arange(num), copies)
    runs = [make_run(image, np.repeat(of, copies), union) for of in values]
    result = paired_bootstrap(*runs, resamples=20_000)
    gains = 100 * (values[1] - values[0]) / 100_000
    error = gains.std() / np.sqrt(num)
    ends = gains.mean() - 1.96 * error, gains.mean() + 1.96 * error
    for column in (0, 1):  # with equal unions oIoU is mIoU
        assert result.difference[0, column] == pytest.approx(gains.mean())
        found = result.low[0, column], result.high[0, column]
        assert found == pytest.approx(ends, abs=0.07 * error)


def test_equal_runs_differ_by_nothing_and_a_swap_by_the_sign(two_runs):
    first, second = two_runs(np.random.default_rng(3), 50)
    same = paired_bootstrap(first, first, resamples=200)
    assert not same.difference.any() and not same.low.any() and not same.high.any()
    there = paired_bootstrap(first, second, resamples=201, seed=4)
    back = paired_bootstrap(second, first, resamples=201, seed=4)
    assert np.allclose(there.low, -back.high) and np.allclose(there.high, -back.low)
    again = paired_bootstrap(first, second, resamples=201, seed=4)
    assert np.array_equal(there.low, again.low)
    other = paired_bootstrap(first, second, resamples=201, seed=5)
    assert not np.array_equal(there.low, other.low)


def test_coverage_of_the_intervals(two_runs):
    rng = np.random.default_rng(6)
    # the true difference: that of a run of very many images
    first, second = two_runs(rng, 60_000)
    true = [second.summary()[key] - first.summary()[key] for key in ('oIoU', 'mIoU')]
    trials, by_image, by_expression = 300, np.zeros(2), 0
    for trial in range(trials):
        runs = two_runs(rng, 80)
        result = paired_bootstrap(*runs, resamples=500, seed=trial)
        by_image += (result.low[0, :2] <= true) & (true <= result.high[0, :2])
        # as if each expression were an image
        apart = [replace(run, images=[str(sent_id) for sent_id in run.sent_ids]) for run in runs]
        result = paired_bootstrap(*apart, resamples=300, seed=trial)
        by_expression += result.low[0, 1] <= true[1] <= result.high[0, 1]
    # two standard errors of 300 trials are 2.5 points; percentile intervals fall a little short
    assert (by_image / trials > 0.91).all() and (by_image / trials < 0.98).all()
    assert by_expression / trials < 0.85


def test_runs_that_do_not_fit_are_refused(two_runs):
    first, second = two_runs(np.random.default_rng(8), 5)
    with pytest.raises(ValueError, match="different rules.*'>'"):
        paired_bootstrap(first, replace(second, tie='>'))
    with pytest.raises(ValueError, match='same order'):
        paired_bootstrap(first, first.take(np.arange(len(first))[::-1]))
