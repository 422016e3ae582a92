"""How a stage tells that it is moving: a protocol of three methods, and who listens (a terminal, a plain log, nobody).

Importing this module never imports torch.

    progress.start("erase", total=300)
    for step in range(300):
        ...
        progress.advance(1, loss=0.031)
    progress.finish()
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, TextIO, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichBar

STAGE_WIDTH = 22  # characters kept for the name of a stage, so that lines stand under each other


@runtime_checkable
class Progress(Protocol):
    """What a stage may call while it works; every call is cheap enough for an inner loop."""

    def start(self, stage: str, total: int | None = None) -> None:
        """Begin a stage of `total` steps (None: unknown); a stage still open is finished first."""

    def advance(self, n: int = 1, **figures: float) -> None:
        """Count `n` more steps done and show the newest figures, e.g. `loss=0.031`."""

    def finish(self, note: str = "") -> None:
        """End the stage; `note` is one short sentence about what came of it."""


class NullProgress:
    """Nobody listens."""

    def start(self, stage: str, total: int | None = None) -> None:
        """Begin a stage silently."""

    def advance(self, n: int = 1, **figures: float) -> None:
        """Count nothing."""

    def finish(self, note: str = "") -> None:
        """End a stage silently."""


QUIET = NullProgress()


class PlainProgress:
    """For logs and pipes: a line when a stage starts, one every few seconds while it runs, one when it ends."""

    def __init__(
        self, stream: TextIO | None = None, every_n_seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Write to `stream` (default: standard error), no more often than every `every_n_seconds`."""
        self._stream = stream
        self._every_n_seconds = every_n_seconds
        self._clock = clock
        self._stage: str | None = None
        self._total: int | None = None
        self._num_done = 0
        self._started = self._last_line = 0.0

    def start(self, stage: str, total: int | None = None) -> None:
        """Begin a stage and say so."""
        if self._stage is not None:
            self.finish()
        self._stage, self._total, self._num_done = stage, total, 0
        self._started = self._last_line = self._clock()
        self._write("started" + (f", {total} steps" if total else ""))

    def advance(self, n: int = 1, **figures: float) -> None:
        """Count; write a line when the last one is old enough."""
        self._num_done += n
        now = self._clock()
        if now - self._last_line >= self._every_n_seconds:
            self._last_line = now
            self._write(" ".join([_fraction(self._num_done, self._total), *_texts(figures)]))

    def finish(self, note: str = "") -> None:
        """Say how long the stage took."""
        if self._stage is None:
            return
        seconds = self._clock() - self._started
        self._write(f"done in {format_seconds(seconds)}" + (f": {note}" if note else ""))
        self._stage = None

    def _write(self, text: str) -> None:
        print(f"{self._stage or '':<{STAGE_WIDTH}} {text}", file=self._stream or sys.stderr, flush=True)


class TerminalProgress:
    """A bar for the stage that runs; a finished stage leaves one line behind."""

    def __init__(self, console: Console | None = None) -> None:
        """Draw on `console` (default: standard error)."""
        self._console = console or Console(stderr=True, highlight=False)
        self._bar: RichBar | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._started = 0.0

    def start(self, stage: str, total: int | None = None) -> None:
        """Begin a stage and draw its bar."""
        if self._bar is not None:
            self.finish()
        self._stage, self._started = stage, time.monotonic()
        self._bar = RichBar(
            TextColumn(f"{{task.description:<{STAGE_WIDTH}}}", style="bold"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[figures]}", style="dim"),
            console=self._console,
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(stage, total=total, figures="")

    def advance(self, n: int = 1, **figures: float) -> None:
        """Move the bar and show the newest figures."""
        if self._bar is None or self._task is None:
            return
        if figures:
            self._bar.update(self._task, advance=n, figures=" ".join(_texts(figures)))
        else:
            self._bar.update(self._task, advance=n)

    def finish(self, note: str = "") -> None:
        """Replace the bar by one line."""
        if self._bar is None:
            return
        self._bar.stop()
        self._bar = self._task = None
        seconds = format_seconds(time.monotonic() - self._started)
        self._console.print(f"[green]✓[/] {self._stage:<{STAGE_WIDTH - 2}} [dim]{seconds:>8}[/]  {note}")


def follow_steps(progress: Progress) -> Callable[[int, int, Mapping[str, float]], None]:
    """What a training may call after each step with (steps done, steps in all, newest figures, often none).

    A training that goes on from a checkpoint starts in the middle; the bar does too.
    """
    num_known = 0

    def advance(num_done: int, total: int, figures: Mapping[str, float]) -> None:
        nonlocal num_known
        progress.advance(num_done - num_known, **figures)
        num_known = num_done

    return advance


def build_progress(quiet: bool = False) -> Progress:
    """The listener that fits where standard error goes: a bar on a terminal, plain lines elsewhere, nobody if quiet.

    Of several processes of one launch the first one tells.
    """
    if quiet or os.environ.get("RANK", "0") != "0":
        return NullProgress()
    return TerminalProgress() if sys.stderr.isatty() else PlainProgress()


@contextmanager
def stage(progress: Progress, name: str, total: int | None = None) -> Iterator[Progress]:
    """Start a stage and finish it however the block ends, so that no bar is left on the screen after an error."""
    progress.start(name, total)
    try:
        yield progress
    except BaseException:
        progress.finish("stopped")
        raise
    progress.finish()


def format_seconds(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `1 h 02 min`: as a person would say it."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _fraction(num_done: int, total: int | None) -> str:
    return f"{num_done}/{total}" if total else str(num_done)


def _texts(figures: dict[str, float]) -> list[str]:
    return [f"{name}={value:.4g}" for name, value in figures.items()]
