"""Means over runs: hand-worked numbers, coverage in simulation, and what happens where nothing varies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from hfi.errors import InvalidInputError
from hfi.evaluate.metrics import Interval, wilson_interval
from hfi.evaluate.repeats import hits_over_runs, mean_over_runs, rate_over_runs, share_over_runs, student_quantile


@pytest.mark.parametrize(("confidence", "degrees"), [(0.95, 1), (0.95, 2), (0.95, 4), (0.9, 9)])
def test_student_quantile_equals_scipy(confidence: float, degrees: int) -> None:
    assert student_quantile(confidence, degrees) == pytest.approx(stats.t.ppf((1 + confidence) / 2, degrees), rel=1e-9)


def test_mean_over_runs_hand_worked() -> None:
    found = mean_over_runs(
        [Interval(0.1, 0.06, 0.16, 50), Interval(0.3, 0.26, 0.36, 50), Interval(0.2, 0.16, 0.26, 50)]
    )
    between = stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert (found.estimate, found.n) == (pytest.approx(0.2), 150)
    assert found.low == pytest.approx(0.2 - math.hypot(0.04, between), abs=2e-3)
    assert found.high == pytest.approx(0.2 + math.hypot(0.06, between), abs=2e-3)
    alone = mean_over_runs([Interval(0.1, 0.06, 0.16, 50)])
    assert (alone.low, alone.high) == (pytest.approx(0.06), pytest.approx(0.16))
    with pytest.raises(InvalidInputError, match="one run or more"):
        mean_over_runs([])


def test_rate_over_runs_of_one_run_or_of_runs_that_agree_is_wilsons() -> None:
    hits = np.arange(40) < 7
    wilson = wilson_interval(7, 40)
    for runs in (1, 3):
        found = rate_over_runs(np.stack([hits] * runs))
        assert (found.estimate, found.low, found.high) == pytest.approx((wilson.estimate, wilson.low, wilson.high))
    nothing = rate_over_runs(np.zeros((3, 40), dtype=bool))
    assert nothing.low == 0 and nothing.high == pytest.approx(wilson_interval(0, 40).high), (
        "three runs are no more prompts"
    )
    with pytest.raises(InvalidInputError, match="one run and one picture"):
        rate_over_runs(np.zeros((0, 4), dtype=bool))


@pytest.mark.parametrize(("rate", "run_spread", "picture_spread"), [(0.2, 0.0, 0.0), (0.2, 0.5, 1.0), (0.05, 0.0, 1.0)])
def test_rate_over_runs_covers_what_it_says(rate: float, run_spread: float, picture_spread: float) -> None:
    """Three runs on 200 pictures, each with its own logit; the truth is the rate over all runs and pictures."""
    rng, centre = np.random.default_rng(0), math.log(rate / (1 - rate))

    def rates(runs: int, pictures: int) -> np.ndarray:
        logits = run_spread * rng.normal(size=(runs, 1)) + picture_spread * rng.normal(size=(1, pictures))
        return 1 / (1 + np.exp(-centre - logits))

    truth = rates(2000, 2000).mean()
    found = [rate_over_runs(rng.random((3, 200)) < rates(3, 200)) for _ in range(800)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in found])
    assert covered > 0.935, covered


def test_hits_over_runs_takes_the_pictures_that_every_run_answers() -> None:
    def side(*answers: bool | None) -> list[dict[str, object]]:
        return [
            {"part": "concept", "prompt": "p", "seed": i, "shows_concept": a, "is_right": a, "rest_is_there": None}
            for i, a in enumerate(answers)
        ]  # fmt: skip

    runs = [
        {"before": side(True, True, None), "after": side(False, True, True)},
        {"before": side(True, True, True), "after": side(True, False, True)},
    ]
    assert hits_over_runs(runs, "removal").tolist() == [[False, True], [True, False]]
    assert hits_over_runs(runs, "others_accuracy").size == 0
    assert hits_over_runs([{}], "removal").size == 0
    assert hits_over_runs([runs[0], {"before": side(True), "after": side(True)}], "removal").size == 0


def test_a_share_over_runs_stays_between_0_and_1() -> None:
    runs = [Interval(0.5, 0.4, 0.6, 50), Interval(0.98, 0.9, 0.99, 50)]
    mean, share = mean_over_runs(runs), share_over_runs(runs)
    assert mean.low < 0 and mean.high > 1
    assert (share.low, share.high, share.estimate, share.n) == (0.0, 1.0, mean.estimate, mean.n)
