"""One attempt of a job: start its process, watch it, stop it when it is not wanted any more, clean up after it.

Importing this module never imports torch or the queue.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from hfi.jobs.job_folder import DEVICES_VARIABLE, JobFolder

LOOK_EVERY_SECONDS = 0.1
ASK_EVERY_SECONDS = 0.5
GRACE_SECONDS = 2.0  # between SIGTERM and SIGKILL
MAX_ATTEMPTS = 5  # in a row that got no further

# What a job is to its worker: go on; a person took it back; another worker has it; this worker is ending.
Standing = Literal["wanted", "cancelled", "lost", "stopping"]


@dataclass(frozen=True)
class AttemptOutcome:
    """How an attempt ended: what the job process wrote (empty: killed), its exit code, whether it was stopped."""

    result: dict[str, Any]
    exit_code: int
    standing: Standing
    seconds: float
    peak_memory_mib: float


@dataclass
class Patience:
    """How long a job is tried again: until five attempts in a row got no further than one before them.

    A long training that is killed now and then goes on as long as it gets on. What it says depends on the outcomes
    alone, so that a workflow that is replayed hears the same.
    """

    num_in_a_row: int = 0
    _furthest: dict[str, int] = field(default_factory=dict)

    def is_over(self, stage: str, step: int) -> bool:
        """Whether an attempt that ended here, worth retrying, was the last one."""
        is_further = step > self._furthest.get(stage, 0)
        self._furthest[stage] = max(step, self._furthest.get(stage, 0))
        self.num_in_a_row = 1 if is_further else self.num_in_a_row + 1
        return self.num_in_a_row >= MAX_ATTEMPTS

    @property
    def pause_seconds(self) -> float:
        """How long to wait before the next: 1, 2, 4, 8 seconds."""
        return 2.0 ** (self.num_in_a_row - 1)


def run_attempt(
    folder: JobFolder, request: dict[str, Any], devices: Sequence[str], ask_standing: Callable[[], Standing]
) -> AttemptOutcome:
    """Run a job's process to its end.

    Args:
        folder: the job's folder.
        request: the request as JSON values.
        devices: GPU numbers, or `cpu`.
        ask_standing: asked twice a second; anything but `wanted` stops the process within seconds.
    """
    folder.prepare(request)
    started = time.monotonic()
    process = _start(folder, devices)
    standing: Standing = "wanted"
    asked = started
    try:
        while not _has_ended(process.pid):
            time.sleep(LOOK_EVERY_SECONDS)
            if time.monotonic() - asked >= ASK_EVERY_SECONDS:
                standing, asked = ask_standing(), time.monotonic()
                if standing != "wanted":
                    _stop(process.pid)
    finally:
        exit_code, peak_memory_mib = _reap(process)
        folder.remove_scratch()
    seconds = time.monotonic() - started
    result = folder.read_result()
    ending = standing if standing != "wanted" else result.get("status", f"exit code {exit_code}")
    with suppress(OSError):
        folder.add_attempt(seconds, peak_memory_mib, ending)
    return AttemptOutcome(result, exit_code, standing, seconds, peak_memory_mib)


def _start(folder: JobFolder, devices: Sequence[str]) -> subprocess.Popen[bytes]:
    numbers = [device for device in devices if device != "cpu"]
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": ",".join(numbers),
        DEVICES_VARIABLE: str(len(devices)),
        "TMPDIR": str(folder.scratch.resolve()),
        "PYTHONUNBUFFERED": "1",
    }
    words = [sys.executable, "-m", "hfi.jobs.job_process", str(folder.store_path), folder.job_id]
    with open(folder.log_path, "ab") as log:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )


def _has_ended(process_id: int) -> bool:
    """Whether it has ended; it is not reaped yet, so that its number and its group's can't be another's."""
    return os.waitid(os.P_PID, process_id, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _stop(process_id: int) -> None:
    """Ask the whole group to end, give it a moment, then end it."""
    _signal_group(process_id, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while not _has_ended(process_id) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_SECONDS / 2)
    _signal_group(process_id, signal.SIGKILL)


def _reap(process: subprocess.Popen[bytes]) -> tuple[int, float]:
    """Kill what is left of the group, then take the exit code and the largest resident size in MiB."""
    _signal_group(process.pid, signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _signal_group(process_id: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process_id, number)
