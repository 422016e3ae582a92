"""Rates, areas and differences, each with the interval without which it says little. Pure functions on numpy arrays.

Notation: k hits in n trials, rate p = k / n; z the two-sided normal quantile of the confidence (1.96 for 95 %).
Every function gives an `Interval`: the estimate, its two ends and the number of observations behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hfi.errors import InvalidInputError

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the ends of its confidence interval.

    Args:
        estimate: The value itself.
        low: Lower end.
        high: Upper end.
        n: Observations behind it.
        confidence: Level, e.g. 0.95.
    """

    estimate: float
    low: float
    high: float
    n: int
    confidence: float = CONFIDENCE


def wilson_interval(num_hits: int, num_trials: int, confidence: float = CONFIDENCE) -> Interval:
    """The rate num_hits / num_trials with Wilson's score interval; honest at 0 and at 1 too.

    Args:
        num_hits: k, from 0 to num_trials.
        num_trials: n, at least 1.
        confidence: Level between 0 and 1.

    Raises:
        InvalidInputError: No trial, or more hits than trials.

    Source: E. B. Wilson, JASA 22 (1927) 209-212; without continuity correction.
    """
    if num_trials < 1 or not 0 <= num_hits <= num_trials:
        raise InvalidInputError(
            f"A rate of {num_hits} in {num_trials} has no interval: the hits must be between 0 and the trials, and "
            f"there must be at least one trial."
        )
    z = _normal_quantile(confidence)
    rate, n = num_hits / num_trials, num_trials
    center = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half_width = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # At k = 0 and k = n one end is the rate itself; rounding must not put it beside it.
    low = 0.0 if num_hits == 0 else max(0.0, center - half_width)
    high = 1.0 if num_hits == num_trials else min(1.0, center + half_width)
    return Interval(rate, low, high, n, confidence)


def difference_of_rates(first: Interval, second: Interval) -> Interval:
    """first - second for rates of independent samples, from their Wilson intervals.

    Args:
        first: Result of `wilson_interval`.
        second: The same, of another sample, at the same confidence.

    Raises:
        InvalidInputError: The two have different confidences.

    Source: R. G. Newcombe, Statistics in Medicine 17 (1998) 873-890, method 10.
    """
    if first.confidence != second.confidence:
        raise InvalidInputError(
            f"Two intervals at {first.confidence:g} and {second.confidence:g} cannot be subtracted: use one confidence."
        )
    return _newcombe(first, second, correlation=0.0)


def difference_of_paired_rates(first: ArrayLike, second: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Rate of `first` minus rate of `second` where both judge the same trials, e.g. two models on the same seeds.

    Args:
        first: One yes or no for each trial.
        second: The same trials, in the same order.
        confidence: Level between 0 and 1.

    Raises:
        InvalidInputError: No trial, or lists of different lengths.

    Source: R. G. Newcombe, Statistics in Medicine 17 (1998) 2635-2650, method 10 (with the corrected phi).
    """
    a, b = np.asarray(first, dtype=bool).ravel(), np.asarray(second, dtype=bool).ravel()
    if len(a) != len(b) or len(a) == 0:
        raise InvalidInputError(f"Paired rates need the same trials twice, but there are {len(a)} and {len(b)}.")
    n, both, only_first = len(a), int((a & b).sum()), int((a & ~b).sum())
    only_second, neither = int((~a & b).sum()), int((~a & ~b).sum())
    agreement: float = both * neither - only_first * only_second
    if agreement > 0:
        agreement = max(agreement - n / 2, 0.0)
    margins = math.prod((both + only_first, only_second + neither, both + only_second, only_first + neither))
    phi = agreement / math.sqrt(margins) if margins else 0.0
    rates = (wilson_interval(both + only_first, n, confidence), wilson_interval(both + only_second, n, confidence))
    return _newcombe(*rates, correlation=phi)


def auroc(is_positive: ArrayLike, scores: ArrayLike) -> float:
    """Probability that a positive is scored above a negative; a tie counts one half.

    Args:
        is_positive: One yes or no for each image.
        scores: One number for each image, higher = more positive.

    Raises:
        InvalidInputError: Only one of the two classes is there, lengths differ, or a score is not finite.

    Source: the Mann-Whitney statistic U / (m n) with midranks (Hanley & McNeil, Radiology 143 (1982) 29-36).
    """
    labels, values = _two_classes(is_positive, scores)
    ranks = _midranks(values)
    num_positive = int(labels.sum())
    num_negative = len(labels) - num_positive
    rank_sum = float(ranks[labels].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def auroc_interval(is_positive: ArrayLike, scores: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """`auroc` with an interval of Wilson's kind: it does not shrink to nothing when the classes do not overlap.

    Args:
        is_positive: One yes or no for each image.
        scores: One number for each image, higher = more positive.
        confidence: Level between 0 and 1.

    Raises:
        InvalidInputError: As `auroc`.

    Source: R. G. Newcombe, Statistics in Medicine 25 (2006) 559-573, method 5: the ends are the areas A with
    (A - estimate)^2 = z^2 var(A), var after Hanley & McNeil with both class sizes set to their mean.
    """
    labels, _ = _two_classes(is_positive, scores)
    estimate, z = auroc(is_positive, scores), _normal_quantile(confidence)
    num_positive, n = int(labels.sum()), len(labels)
    spread = n / 2 - 1

    def is_outside(area: float) -> bool:
        variance = area * (1 - area) * (1 + spread * (1 - area) / (2 - area) + spread * area / (1 + area))
        return (area - estimate) ** 2 > z * z * variance / (num_positive * (n - num_positive))

    low = 0.0 if estimate == 0 else _boundary(is_outside, outside=0.0, inside=estimate)
    high = 1.0 if estimate == 1 else _boundary(is_outside, outside=1.0, inside=estimate)
    return Interval(estimate, low, high, n, confidence)


def bootstrap_interval(
    values: ArrayLike,
    statistic: Statistic | None = None,
    *,
    confidence: float = CONFIDENCE,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """A statistic of independent observations with its percentile bootstrap interval.

    Args:
        values: One number for each observation, or one row of numbers.
        statistic: Takes an array with observations on axis -1 (for rows: axis -2) and gives one number for each
            leading index; None = the mean.
        confidence: Level between 0 and 1.
        num_resamples: How often to draw as many observations, with replacement.
        seed: Seed of the draws.

    Raises:
        InvalidInputError: There is no observation.

    Source: B. Efron, Annals of Statistics 7 (1979) 1-26.
    """
    observations = np.asarray(values, dtype=np.float64)
    if observations.ndim == 0 or len(observations) == 0:
        raise InvalidInputError("A bootstrap interval needs at least one observation, but there is none.")
    axis = -1 if observations.ndim == 1 else -2
    compute: Statistic = statistic or (lambda sample: np.asarray(np.mean(sample, axis=axis)))
    generator, n = np.random.default_rng(seed), len(observations)
    # A block at a time: 10,000 resamples of 10,000 numbers would take 800 MB at once.
    block = max(1, 2_000_000 // observations.size)
    sizes = [min(block, num_resamples - start) for start in range(0, num_resamples, block)]
    resampled = np.concatenate([compute(observations[generator.integers(0, n, (size, n))]) for size in sizes])
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(float(compute(observations)), float(low), float(high), n, confidence)


def _newcombe(first: Interval, second: Interval, correlation: float) -> Interval:
    """Square-and-add: how far each rate may lie from its estimate, combined as for correlated normal variables."""
    difference = first.estimate - second.estimate
    down = (first.estimate - first.low, second.high - second.estimate)
    up = (first.high - first.estimate, second.estimate - second.low)
    low, high = (
        difference + sign * math.sqrt(max(0.0, x * x + y * y - 2 * correlation * x * y))
        for sign, (x, y) in ((-1, down), (1, up))
    )
    return Interval(difference, max(-1.0, low), min(1.0, high), min(first.n, second.n), first.confidence)


def _two_classes(is_positive: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    labels, values = np.asarray(is_positive, dtype=bool).ravel(), np.asarray(scores, dtype=np.float64).ravel()
    if len(labels) != len(values):
        raise InvalidInputError(f"There are {len(labels)} labels but {len(values)} scores: give one score a label.")
    if not np.isfinite(values).all():
        raise InvalidInputError("A score is not a finite number: leave out images that could not be scored.")
    if labels.all() or not labels.any():
        raise InvalidInputError(
            f"All {len(labels)} labels are the same: an area needs at least one positive and one negative image."
        )
    return labels, values


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], dtype=np.float64)


def _boundary(is_outside: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where a condition that holds at one end and not at the other changes, by bisection to the last digit."""
    for _ in range(60):
        middle = (outside + inside) / 2
        if is_outside(middle):
            outside = middle
        else:
            inside = middle
    return inside


def _normal_quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InvalidInputError(f"The confidence is {confidence:g}, but must lie between 0 and 1, for instance 0.95.")
    return NormalDist().inv_cdf((1 + confidence) / 2)
