"""Progress of a job process: a line in its log now and then, and a file that others read while it runs.

A stage calls `advance` in its inner loop; that only changes a few attributes. A thread writes the file twice a second,
so that a reader sees the newest step even when the next one takes minutes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from types import TracebackType

from hfi.jobs.job_folder import JobFolder, JobProgress
from hfi.progress import PlainProgress

WRITE_EVERY_SECONDS = 0.5
RATE_SAMPLES = 120  # of WRITE_EVERY_SECONDS each: the rate is that of the last minute
MAX_CURVE_POINTS = 400


class FileProgress:
    """Keeps the `Progress` protocol; use it as a context manager."""

    def __init__(self, folder: JobFolder) -> None:
        """Write into a job's folder."""
        self._folder = folder
        self._log = PlainProgress()
        self._stage, self._step = "", 0
        self._total: int | None = None
        self._figures: dict[str, float] = {}
        self._curve: list[tuple[int, dict[str, float]]] = []
        self._points_every_n_steps, self._next_point = 1, 0
        self._samples: deque[tuple[float, int]] = deque(maxlen=RATE_SAMPLES)
        self._run_id = ""
        self._is_changed = True
        self._ended = threading.Event()
        self._writer = threading.Thread(target=self._write_until_ended, name="progress", daemon=True)

    def __enter__(self) -> FileProgress:
        self._writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._writer.join()
        self._write()

    def set_run(self, run_id: str) -> None:
        """Name the run that the job works on."""
        self._run_id, self._is_changed = run_id, True

    def start(self, stage: str, total: int | None = None) -> None:
        """Begin a stage."""
        self._log.start(stage, total)
        self._stage, self._total, self._step = stage, total, 0
        self._figures, self._curve = {}, []
        self._points_every_n_steps, self._next_point = 1, 0
        self._samples.clear()
        self._is_changed = True

    def advance(self, n: int = 1, **figures: float) -> None:
        """Count steps and keep the newest figures."""
        self._step += n
        self._is_changed = True
        if figures:
            self._figures = figures
            if self._step >= self._next_point:
                self._add_point(figures)
        self._log.advance(n, **figures)

    def finish(self, note: str = "") -> None:
        """End the stage."""
        self._log.finish(note)

    def _add_point(self, figures: dict[str, float]) -> None:
        self._curve.append((self._step, figures))
        if len(self._curve) > MAX_CURVE_POINTS:
            self._curve = self._curve[::2]
            self._points_every_n_steps *= 2
        self._next_point = self._step + self._points_every_n_steps

    def _write_until_ended(self) -> None:
        while not self._ended.wait(WRITE_EVERY_SECONDS):
            self._samples.append((time.monotonic(), self._step))
            if self._is_changed:
                self._write()

    def _write(self) -> None:
        self._is_changed = False
        rate = self._rate()
        left = (self._total - self._step) / rate if rate and self._total is not None else None
        progress = JobProgress(
            self._stage, self._step, self._total, dict(self._figures), rate, left, time.time(), self._run_id,
            list(self._curve),
        )  # fmt: skip
        with suppress(OSError):  # a full disk must not end a job that needs no more space
            self._folder.write_progress(vars(progress))

    def _rate(self) -> float | None:
        if len(self._samples) < 2:
            return None
        (before, first), (now, last) = self._samples[0], self._samples[-1]
        return (last - first) / (now - before) if now > before and last > first else None
