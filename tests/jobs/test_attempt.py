"""How long a job is tried again: attempts that get no further count, those that do begin anew."""

from __future__ import annotations

import pytest

from hfi.jobs.attempt import MAX_ATTEMPTS, Patience


@pytest.mark.parametrize("step", [0, 10])
def test_patience_ends_after_five_attempts_that_reach_the_same_step(step: int) -> None:
    patience = Patience()
    pauses = []
    while not patience.is_over("train", step):
        pauses.append(patience.pause_seconds)
    assert pauses == [1.0, 2.0, 4.0, 8.0] and len(pauses) == MAX_ATTEMPTS - 1


def test_patience_begins_anew_whenever_an_attempt_gets_further() -> None:
    patience = Patience()
    assert not any(patience.is_over("train", step) for step in range(0, 200, 5))
    assert not patience.is_over("measure", 1)  # a stage nobody had reached
    assert [patience.is_over("train", 40) for _ in range(4)] == [False, False, False, True]


def test_patience_says_the_same_when_a_workflow_is_replayed() -> None:
    ends = [("embed", 0), ("embed", 8), ("train", 3), ("embed", 8), ("train", 3), ("train", 2), ("", 0), ("train", 3)]
    first, second = Patience(), Patience()
    assert [first.is_over(*end) for end in ends] == [second.is_over(*end) for end in ends] == [False] * 6 + [True] * 2
