"""Several runs of one method as one number with its interval. Torch-free.

All runs of a method draw the same prompts and seeds, so two things vary and cross each other: the runs (what a method
makes of another seed of its training) and the pictures (which prompts were drawn). An interval has to say both: three
runs on one set of prompts tell little of other prompts, and many prompts tell nothing of another run.

    symbol  variable         meaning
    R, n    runs, pictures   how many of each
    m       estimate         mean over all runs and pictures
    d       distance         from m to the end of an interval over pictures alone
    s       spread           standard deviation of the runs' means
    t       t                two-sided quantile of Student's t with R - 1 degrees of freedom

    low, high = m -+ sqrt(d^2 + (t s / sqrt(R))^2)

Both parts hold what varies with run and picture together, so the interval is rather too wide than too narrow; with one
run it is the interval over pictures alone. It does not say how another set of judgments would turn out.

Source: square-and-add, Zou & Donner, Statistics in Medicine 27 (2008) 1693-1702, with Student's t over the runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfi.errors import InvalidInputError
from hfi.evaluate.metrics import CONFIDENCE, Interval, wilson_interval

# measure -> (part of the suite, question of a judged picture)
QUESTIONS = {
    "removal": ("concept", "shows_concept"),
    "others_accuracy": ("others", "is_right"),
    "in_prompt_rest": ("concept", "rest_is_there"),
}
EXPLANATION = (
    "Rows of several runs: the mean over runs; the interval covers both what varies from run to run (Student's t) and "
    "from picture to picture (all runs draw the same prompts and seeds), added in squares. Rows of one run: over "
    "pictures alone. Runs differ in the seed of the eraser; judgments, score model and tokens are the same for all."
)


def rate_over_runs(hits: NDArray[np.bool_], confidence: float = CONFIDENCE) -> Interval:
    """A rate over runs and pictures.

    The distance over pictures is Wilson's for as many independent pictures as would vary like the pictures' means over
    runs do: from n (all runs agree on every picture) to R n (each run is a new throw of the dice).

    Args:
        hits: [runs, pictures] yes or no; pictures in the same order in every run.
        confidence: Level between 0 and 1.

    Raises:
        InvalidInputError: There is no run or no picture.

    Source: effective sample size, Korn & Graubard, Survey Methodology 24 (1998) 193-201.
    """
    if hits.ndim != 2 or hits.size == 0:
        raise InvalidInputError("A rate over runs needs one run and one picture or more.")
    num_runs, num_pictures = hits.shape
    rate = float(hits.mean())
    variance = float(hits.mean(axis=0).var(ddof=1)) / num_pictures if num_pictures > 1 else 0.0
    effective = rate * (1 - rate) / variance if variance > 0 else num_pictures
    effective = round(min(max(effective, num_pictures), num_runs * num_pictures))
    pictures = wilson_interval(round(rate * effective), effective, confidence)
    down, up = pictures.estimate - pictures.low, pictures.high - pictures.estimate
    low, high = _square_and_add(rate, down, up, hits.mean(axis=1), confidence)
    return Interval(rate, max(0.0, low), min(1.0, high), num_runs * num_pictures, confidence)


def mean_over_runs(runs: Sequence[Interval]) -> Interval:
    """The mean of one measure over runs, each with its interval over pictures (or none: low and high the estimate).

    The distance over pictures is that of a single run, in the quadratic mean: how far it shrinks cannot be told without
    the pictures themselves.

    Raises:
        InvalidInputError: There is no run.
    """
    if not runs:
        raise InvalidInputError("A mean over runs needs one run or more.")
    values = np.array([run.estimate for run in runs])
    mean = float(values.mean())
    down = math.sqrt(sum((run.estimate - run.low) ** 2 for run in runs) / len(runs))
    up = math.sqrt(sum((run.high - run.estimate) ** 2 for run in runs) / len(runs))
    low, high = _square_and_add(mean, down, up, values, runs[0].confidence)
    return Interval(mean, low, high, sum(run.n for run in runs), runs[0].confidence)


def share_over_runs(runs: Sequence[Interval]) -> Interval:
    """`mean_over_runs` of shares: nothing lies below 0 or above 1."""
    mean = mean_over_runs(runs)
    return replace(mean, low=max(0.0, mean.low), high=min(1.0, mean.high))


def hits_over_runs(runs: Sequence[Mapping[str, Sequence[Mapping[str, Any]]]], measure: str) -> NDArray[np.bool_]:
    """[runs, pictures] answers of a measure in QUESTIONS, of the pictures that every run and the original answer.

    Args:
        runs: Pictures of an evaluation by side, as `EvaluationResult.pictures` lists them; same prompts in all.
        measure: A key of QUESTIONS.

    Returns:
        An empty array where pictures are not listed or do not go together.
    """
    part, question = QUESTIONS[measure]
    sides = [[row for row in side if row["part"] == part] for run in runs for side in run.values()]
    keys = [[(row["prompt"], row["seed"]) for row in side] for side in sides]
    if not keys or not keys[0] or any(other != keys[0] for other in keys):
        return np.zeros((0, 0), dtype=bool)
    known = [i for i in range(len(keys[0])) if all(side[i][question] is not None for side in sides)]
    after = [[row for row in run["after"] if row["part"] == part] for run in runs]
    return np.array([[side[i][question] for i in known] for side in after], dtype=bool)


def _square_and_add(
    mean: float, down: float, up: float, run_means: NDArray[np.float64], confidence: float
) -> tuple[float, float]:
    num_runs = len(run_means)
    between = 0.0
    if num_runs > 1:
        spread = float(np.std(run_means, ddof=1))
        between = student_quantile(confidence, num_runs - 1) * spread / math.sqrt(num_runs)
    return mean - math.hypot(down, between), mean + math.hypot(up, between)


def student_quantile(confidence: float, degrees: int) -> float:
    """The t with P(|T| <= t) = confidence."""
    from scipy.special import stdtrit  # costs a moment to import; most callers have one run

    return float(stdtrit(degrees, (1 + confidence) / 2))
