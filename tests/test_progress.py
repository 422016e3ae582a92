"""Progress: what a log shows, how often, and that a stage is closed however it ends."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hfi.progress import (
    NullProgress,
    PlainProgress,
    Progress,
    TerminalProgress,
    build_progress,
    follow_steps,
    format_seconds,
    stage,
)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_plain_progress_writes_few_lines() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = PlainProgress(stream, every_n_seconds=10, clock=clock)
    progress.start("erase", 300)
    for _ in range(30):
        clock.now += 1
        progress.advance(10, loss=0.03125)
    progress.finish("8 tokens")
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    assert lines == [
        "erase started, 300 steps",
        "erase 100/300 loss=0.03125",
        "erase 200/300 loss=0.03125",
        "erase 300/300 loss=0.03125",
        "erase done in 30 s: 8 tokens",
    ]


def test_a_new_stage_finishes_the_one_before() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, clock=Clock())
    progress.start("one")
    progress.start("two")
    assert [line.split()[:2] for line in stream.getvalue().splitlines()] == [
        ["one", "started"],
        ["one", "done"],
        ["two", "started"],
    ]


def test_stage_is_closed_after_an_error() -> None:
    stream = io.StringIO()
    with pytest.raises(ZeroDivisionError), stage(PlainProgress(stream, clock=Clock()), "score"):
        raise ZeroDivisionError
    assert stream.getvalue().splitlines()[-1].endswith("stopped")


def test_terminal_progress_leaves_one_line_a_stage() -> None:
    stream = io.StringIO()
    progress = TerminalProgress(Console(file=stream, width=100))
    with stage(progress, "invert", 4):
        progress.advance(4, loss=0.5)
    progress.finish()
    assert [line.split()[:2] for line in stream.getvalue().splitlines() if line.strip()] == [["✓", "invert"]]


@pytest.mark.parametrize("progress", [NullProgress(), PlainProgress(io.StringIO()), TerminalProgress()])
def test_listeners_keep_the_protocol(progress: Progress) -> None:
    assert isinstance(progress, Progress)
    progress.advance(1)
    progress.finish()


def test_build_progress_draws_no_bar_into_a_pipe() -> None:
    assert isinstance(build_progress(), PlainProgress)
    assert isinstance(build_progress(quiet=True), NullProgress)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (3725, "1 h 02 min")],
)
def test_format_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_follow_steps_counts_on_from_a_checkpoint() -> None:
    told: list[tuple[int, dict[str, float]]] = []

    class Listener(NullProgress):
        def advance(self, n: int = 1, **figures: float) -> None:
            told.append((n, figures))

    follow = follow_steps(Listener())
    follow(51, 100, {})
    follow(52, 100, {"loss": 0.5})
    assert told == [(51, {}), (1, {"loss": 0.5})]
