"""The folder of a job: what was asked, how far it is, what it says, how it ended and what it cost.

    <store>/jobs/<job id>/request.json   what the worker hands to the job process
                          progress.json  how far it is; replaced about twice a second
                          log.txt        what the job process prints; every attempt adds to it
                          result.json    how the last attempt ended, written by the job process
                          cost.json      every attempt's seconds and peak memory, written by the worker

Each file is replaced whole, so a reader never sees half of one. Nothing is flushed to the disk: after a power cut the
job runs again anyway. Importing this module never imports torch or the queue.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOG_CHUNK_BYTES = 256 * 1024
DEVICES_VARIABLE = "HFI_JOB_DEVICES"  # tells the job process how many devices it has


@dataclass(frozen=True)
class JobProgress:
    """How far a job is.

    Args:
        stage: what it is at, in a word or two.
        step, of: steps done and to be done in this stage (None: unknown).
        figures: newest figures, for instance `loss`.
        per_second: steps (pictures, when generating) a second, over the last minute.
        seconds_left: until this stage ends.
        updated_at: seconds since 1970 UTC.
        run_id: the run in the store, as soon as there is one.
        curve: (step, figures) of this stage, thinned to a few hundred points.
    """

    stage: str = ""
    step: int = 0
    of: int | None = None
    figures: dict[str, float] = field(default_factory=dict)
    per_second: float | None = None
    seconds_left: float | None = None
    updated_at: float = 0.0
    run_id: str = ""
    curve: list[tuple[int, dict[str, float]]] = field(default_factory=list)


@dataclass(frozen=True)
class JobCost:
    """What a job has cost so far, over all its attempts: seconds of wall clock, and the largest peak memory."""

    attempts: int = 0
    seconds: float = 0.0
    peak_memory_mib: float = 0.0
    peak_gpu_memory_mib: float | None = None


class JobFolder:
    """The files of one job."""

    def __init__(self, store_path: Path, job_id: str) -> None:
        """Name the folder; it is made by `prepare`."""
        self.store_path = store_path
        self.job_id = job_id
        self.path = store_path / "jobs" / job_id
        self.scratch = store_path / "tmp" / job_id
        self.log_path = self.path / "log.txt"

    def prepare(self, request: dict[str, Any]) -> None:
        """Make everything ready for an attempt: the request in place, no result, an empty scratch folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            (self.path / "result.json").unlink()
        self.remove_scratch()
        self.scratch.mkdir(parents=True)
        self._write("request.json", request)

    def remove_scratch(self) -> None:
        """Remove what the job left unfinished."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def read_request(self) -> dict[str, Any]:
        """What was asked."""
        return self._read("request.json")

    def write_result(self, result: dict[str, Any]) -> None:
        """Say how the attempt ended."""
        self._write("result.json", result)

    def read_result(self) -> dict[str, Any]:
        """How the attempt ended; empty when it was killed."""
        return self._read("result.json")

    def write_progress(self, progress: dict[str, Any]) -> None:
        """Say how far the job is."""
        self._write("progress.json", progress)

    def read_progress(self) -> JobProgress | None:
        """How far the job is; None when nothing is known yet."""
        content = self._read("progress.json")
        return JobProgress(**content) if content else None

    def add_attempt(self, seconds: float, peak_memory_mib: float, ending: str) -> None:
        """Add an attempt to the job's cost."""
        attempts = self._read("cost.json").get("attempts", [])
        attempt = {"seconds": round(seconds, 3), "peak_memory_mib": round(peak_memory_mib, 1), "ending": ending}
        self._write("cost.json", {"attempts": [*attempts, attempt]})

    def read_cost(self) -> JobCost:
        """What the job has cost so far."""
        attempts = self._read("cost.json").get("attempts", [])
        return JobCost(
            len(attempts),
            round(sum(attempt["seconds"] for attempt in attempts), 3),
            max((attempt["peak_memory_mib"] for attempt in attempts), default=0.0),
            self.read_result().get("peak_gpu_memory_mib"),
        )

    def read_log(self, offset: int = 0) -> tuple[str, int]:
        """What the job printed from a byte on (negative: that many bytes from the end), and where to read on."""
        try:
            with open(self.log_path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(min(size, offset) if offset >= 0 else max(0, size + offset))
                chunk = file.read(LOG_CHUNK_BYTES)
                return chunk.decode("utf-8", "replace"), file.tell()
        except FileNotFoundError:
            return "", 0

    def _write(self, name: str, content: dict[str, Any]) -> None:
        unfinished = self.path / f".{name}.part"
        unfinished.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
        os.replace(unfinished, self.path / name)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}
