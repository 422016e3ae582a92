"""Rates, areas and differences against printed examples, scipy, and simulation of what an interval promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hfi.errors import InvalidInputError
from hfi.evaluate.metrics import (
    Interval,
    auroc,
    auroc_interval,
    bootstrap_interval,
    difference_of_paired_rates,
    difference_of_rates,
    wilson_interval,
)

COVERAGE_TOLERANCE = 0.015  # around 95 %


def is_covered(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


@pytest.mark.parametrize(
    ("num_hits", "num_trials", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_equals_printed_examples(num_hits: int, num_trials: int, low: float, high: float) -> None:
    interval = wilson_interval(num_hits, num_trials)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)
    assert interval.estimate == num_hits / num_trials


@given(st.integers(1, 5000), st.floats(0, 1), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_interval_equals_scipy(num_trials: int, share: float, confidence: float) -> None:
    num_hits = round(share * num_trials)
    ours = wilson_interval(num_hits, num_trials, confidence)
    theirs = stats.binomtest(num_hits, num_trials).proportion_ci(confidence, method="wilson")
    assert ours.low == pytest.approx(theirs.low, abs=1e-12)
    assert ours.high == pytest.approx(theirs.high, abs=1e-12)
    assert 0 <= ours.low <= ours.estimate <= ours.high <= 1


@given(st.integers(1, 300), st.floats(0, 1))
def test_wilson_interval_of_misses_mirrors_that_of_hits(num_trials: int, share: float) -> None:
    num_hits = round(share * num_trials)
    hits, misses = wilson_interval(num_hits, num_trials), wilson_interval(num_trials - num_hits, num_trials)
    assert misses.low == pytest.approx(1 - hits.high, abs=1e-12)
    assert misses.high == pytest.approx(1 - hits.low, abs=1e-12)


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.85])
def test_wilson_interval_covers_as_promised(rate: float) -> None:
    hits = np.random.default_rng(1).binomial(200, rate, size=4000)
    covered = {k: is_covered(wilson_interval(int(k), 200), rate) for k in np.unique(hits)}
    assert np.mean([covered[k] for k in hits]) == pytest.approx(0.95, abs=COVERAGE_TOLERANCE)


@pytest.mark.parametrize(("num_hits", "num_trials"), [(0, 0), (-1, 10), (11, 10)])
def test_wilson_interval_refuses_what_is_no_rate(num_hits: int, num_trials: int) -> None:
    with pytest.raises(InvalidInputError, match="at least one trial"):
        wilson_interval(num_hits, num_trials)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, float("nan")])
def test_wilson_interval_refuses_a_confidence_that_is_none(confidence: float) -> None:
    with pytest.raises(InvalidInputError, match="between 0 and 1"):
        wilson_interval(5, 10, confidence)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998) 873-890, table II, method 10.
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((10, 10), (0, 10), 0.6075, 1.0)],
)
def test_difference_of_rates_equals_printed_examples(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    interval = difference_of_rates(wilson_interval(*first), wilson_interval(*second))
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


def test_difference_of_rates_mirrors_when_swapped() -> None:
    a, b = wilson_interval(180, 200), wilson_interval(12, 220)
    forth, back = difference_of_rates(a, b), difference_of_rates(b, a)
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low))


def test_difference_of_rates_refuses_different_confidences() -> None:
    with pytest.raises(InvalidInputError, match="one confidence"):
        difference_of_rates(wilson_interval(1, 2, 0.9), wilson_interval(1, 2, 0.95))


def test_difference_of_paired_rates_of_a_worked_example() -> None:
    # 36 both, 12 only first, 2 only second, 0 neither: phi = (0 - 24) / sqrt(48 * 2 * 38 * 12) = -0.11471;
    # Wilson: 48/50 -> .86541 to .98896, 38/50 -> .62587 to .85706; low .2 - .14358, high .2 + .14496 by hand.
    first = [True] * 48 + [False] * 2
    second = [True] * 36 + [False] * 12 + [True] * 2
    interval = difference_of_paired_rates(first, second)
    assert interval.estimate == pytest.approx(0.2)
    x, y = 0.96 - 0.86541, 0.85706 - 0.76
    assert interval.low == pytest.approx(0.2 - np.sqrt(x * x + y * y + 2 * 0.11471 * x * y), abs=1e-4)
    x, y = 0.98896 - 0.96, 0.76 - 0.62587
    assert interval.high == pytest.approx(0.2 + np.sqrt(x * x + y * y + 2 * 0.11471 * x * y), abs=1e-4)


def test_difference_of_paired_rates_is_sharper_when_pairs_agree() -> None:
    first = np.arange(200) % 2 == 0
    second = first.copy()
    second[:10] = False
    paired = difference_of_paired_rates(first, second)
    apart = difference_of_rates(wilson_interval(100, 200), wilson_interval(int(second.sum()), 200))
    assert paired.estimate == pytest.approx(apart.estimate)
    assert paired.high - paired.low < (apart.high - apart.low) / 2


def test_difference_of_paired_rates_covers_as_promised() -> None:
    rng = np.random.default_rng(2)
    is_hit = rng.random((2000, 200)) < 0.6
    second = np.where(rng.random((2000, 200)) < 0.7, is_hit, rng.random((2000, 200)) < 0.4)
    truth = 0.6 - (0.7 * 0.6 + 0.3 * 0.4)
    covered = [is_covered(difference_of_paired_rates(a, b), truth) for a, b in zip(is_hit, second, strict=True)]
    assert np.mean(covered) == pytest.approx(0.95, abs=COVERAGE_TOLERANCE)


def test_difference_of_paired_rates_refuses_different_trials() -> None:
    with pytest.raises(InvalidInputError, match="same trials twice"):
        difference_of_paired_rates([True], [True, False])


def test_auroc_of_a_worked_example() -> None:
    # Pairs (positive, negative): 3>1, 3>2, 2>1, 2=2 -> (1 + 1 + 1 + 1/2) / 4
    assert auroc([True, True, False, False], [3, 2, 1, 2]) == 3.5 / 4


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=2, max_size=60))
def test_auroc_equals_scipy_and_mirrors(pairs: list[tuple[bool, int]]) -> None:
    labels, scores = np.array([p for p, _ in pairs]), np.array([float(s) for _, s in pairs])
    if labels.all() or not labels.any():
        return
    statistic = stats.mannwhitneyu(scores[labels], scores[~labels], method="asymptotic").statistic
    assert auroc(labels, scores) == pytest.approx(statistic / (labels.sum() * (~labels).sum()))
    assert auroc(labels, -scores) == pytest.approx(1 - auroc(labels, scores))


def test_auroc_interval_stays_open_when_classes_do_not_overlap() -> None:
    interval = auroc_interval([False] * 20 + [True] * 20, np.arange(40.0))
    assert interval.estimate == interval.high == 1.0
    assert 0.85 < interval.low < 0.95


def test_auroc_interval_ends_solve_their_equation() -> None:
    rng = np.random.default_rng(3)
    labels, z, m, n = np.arange(90) < 30, 1.959964, 30, 60
    interval = auroc_interval(labels, rng.normal(size=90) + labels)
    spread = (m + n) / 2 - 1
    for area in (interval.low, interval.high):
        variance = area * (1 - area) * (1 + spread * (1 - area) / (2 - area) + spread * area / (1 + area)) / (m * n)
        assert (area - interval.estimate) ** 2 == pytest.approx(z * z * variance, rel=1e-5)


@pytest.mark.parametrize("shift", [0.7, 1.8, 2.6])
def test_auroc_interval_covers_at_least_what_it_promises(shift: float) -> None:
    rng, labels = np.random.default_rng(4), np.arange(150) < 60
    truth = stats.norm.cdf(shift / np.sqrt(2))
    covered = [is_covered(auroc_interval(labels, rng.normal(size=150) + shift * labels), truth) for _ in range(400)]
    # Near 1 the interval is on the safe side: its variance is that of the worst pair of distributions.
    assert 0.935 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([True, True], [1.0, 2.0], "labels are the same"),
        ([True, False], [1.0], "2 labels but 1 scores"),
        ([True, False], [1.0, float("nan")], "not a finite number"),
    ],
)
def test_auroc_refuses_what_has_no_area(labels: list[bool], scores: list[float], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        auroc(labels, scores)


def test_bootstrap_interval_equals_scipy_within_its_noise() -> None:
    values = np.random.default_rng(5).exponential(size=80)
    ours = bootstrap_interval(values, seed=6)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=7).confidence_interval
    width = ours.high - ours.low
    assert ours.estimate == pytest.approx(values.mean())
    assert abs(ours.low - theirs.low) < 0.05 * width
    assert abs(ours.high - theirs.high) < 0.05 * width


def test_bootstrap_interval_of_rows_resamples_rows() -> None:
    rows = np.stack([np.arange(50.0), 2 * np.arange(50.0)], axis=1)
    ratio = bootstrap_interval(rows, lambda sample: sample[..., 1].mean(-1) / sample[..., 0].mean(-1))
    assert (ratio.estimate, ratio.low, ratio.high) == pytest.approx((2.0, 2.0, 2.0))


def test_bootstrap_interval_repeats_with_its_seed_and_does_not_depend_on_blocks() -> None:
    values = np.random.default_rng(8).normal(size=30_000)
    assert bootstrap_interval(values, num_resamples=200, seed=1) == bootstrap_interval(
        values, num_resamples=200, seed=1
    )


def test_bootstrap_interval_covers_as_promised() -> None:
    rng = np.random.default_rng(9)
    intervals = [bootstrap_interval(rng.normal(size=120), num_resamples=600, seed=i) for i in range(1500)]
    assert np.mean([is_covered(interval, 0.0) for interval in intervals]) == pytest.approx(0.95, abs=COVERAGE_TOLERANCE)


def test_bootstrap_interval_refuses_nothing() -> None:
    with pytest.raises(InvalidInputError, match="at least one observation"):
        bootstrap_interval([])
