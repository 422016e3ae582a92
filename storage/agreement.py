"""How far annotators agree beyond chance: Krippendorff's alpha, with a bootstrap interval. Pure numpy.

Notation: units u (what is judged), values c, k (what can be answered); ``counts[u, c]`` how many annotators gave
unit u the value c; ``m_u`` answers to unit u (units with one answer can't be paired and are left out);
``delta2[c, k]`` squared distance between two values.

Source: Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, sections B to E.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Level = Literal["nominal", "ordinal", "interval"]
LEVELS: tuple[Level, ...] = ("nominal", "ordinal", "interval")
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Alpha with its interval; None where it is not defined (no unit with two answers, or a single value).

    Args:
        alpha: 1 = perfect, 0 = as by chance, below 0 = systematic disagreement.
        low, high: limits of the percentile bootstrap interval over units.
        n_units: units with at least two answers.
        n_answers: answers to those units.
    """

    alpha: float | None
    low: float | None
    high: float | None
    level: str
    n_units: int
    n_answers: int


def count_values(units: Ints, values: Ints, n_units: int, n_values: int) -> Floats:
    """``counts[u, c]`` from one entry an answer."""
    flat = np.bincount(units * n_values + values, minlength=n_units * n_values)
    return flat.reshape(n_units, n_values).astype(np.float64)


def squared_distances(level: Level, value_totals: Floats, scale: Floats | None = None) -> Floats:
    """``delta2[c, k]`` for the level of measurement.

    Args:
        value_totals: how often each value was given; ordinal distance counts what lies between two values.
        scale: the numbers the values stand for (interval); default 0, 1, 2 ...
    """
    n_values = len(value_totals)
    if level == "nominal":
        return 1.0 - np.eye(n_values)
    if level == "interval":
        numbers = np.arange(n_values, dtype=np.float64) if scale is None else scale
        return np.subtract.outer(numbers, numbers) ** 2
    # Sum of the totals from c to k, less half of the totals of c and k themselves.
    middle = np.cumsum(value_totals) - value_totals / 2
    distances: Floats = np.subtract.outer(middle, middle) ** 2
    return distances


def krippendorff_alpha(
    counts: Floats,
    level: Level = "nominal",
    *,
    scale: Floats | None = None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Agreement:
    """Alpha of a table of counts, with a percentile bootstrap interval over units.

    Missing answers need no special care: a unit simply has fewer of them.

    Args:
        counts: [n_units, n_values].
        n_bootstrap: resamples; 0 = no interval.
    """
    paired = counts[counts.sum(axis=1) >= 2]
    n_units, n_answers = len(paired), int(paired.sum())
    if n_units == 0:
        return Agreement(None, None, None, level, 0, 0)
    # Units with the same counts are interchangeable, and there are few kinds: resampling their frequencies is the
    # same as resampling units, and takes no longer for 200,000 units than for 200.
    patterns, frequencies = np.unique(paired, axis=0, return_counts=True)
    alpha = _alpha(patterns, frequencies.astype(np.float64), level, scale)
    if alpha is None or n_bootstrap == 0:
        return Agreement(alpha, None, None, level, n_units, n_answers)
    generator = np.random.default_rng(seed)
    resampled = generator.multinomial(n_units, frequencies / n_units, size=n_bootstrap)
    values = [_alpha(patterns, row.astype(np.float64), level, scale) for row in resampled]
    # A resample in which everyone gave one value has no alpha of its own; full agreement is what it shows.
    low, high = np.quantile([1.0 if value is None else value for value in values], _tails(confidence))
    return Agreement(alpha, float(low), float(high), level, n_units, n_answers)


def _tails(confidence: float) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2


def _alpha(patterns: Floats, frequencies: Floats, level: Level, scale: Floats | None) -> float | None:
    """1 - observed / expected disagreement, for units given as patterns with frequencies."""
    per_unit = patterns.sum(axis=1)
    totals = frequencies @ patterns
    delta2 = squared_distances(level, totals, scale)
    n_answers = totals.sum()
    # sum over ordered pairs c != k of counts_c counts_k delta2, divided by (m_u - 1) for each unit
    disagreement = np.einsum("uc,ck,uk->u", patterns, delta2, patterns) / (per_unit - 1)
    observed = float(frequencies @ disagreement) / n_answers
    expected = float(totals @ delta2 @ totals) / (n_answers * (n_answers - 1))
    return None if expected == 0 else 1.0 - observed / expected


def summarise_agreement(agreement: Agreement) -> dict[str, float | int | str | None]:
    """An agreement as JSON values, rounded to what its interval can bear."""

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 4)

    return {
        "alpha": rounded(agreement.alpha),
        "low": rounded(agreement.low),
        "high": rounded(agreement.high),
        "level": agreement.level,
        "n_units": agreement.n_units,
        "n_answers": agreement.n_answers,
    }
