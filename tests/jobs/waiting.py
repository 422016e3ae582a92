"""Waiting for what other processes do, and finding them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "HFI_JOB_KINDS": "tests.jobs.slow_job",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
}
PATIENCE_SECONDS = 300.0  # a test that passes never waits so long; a busy machine may


def wait_until(is_so: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> float:
    """Wait until something is so; the seconds it took."""
    started = time.monotonic()
    while not is_so():
        assert time.monotonic() - started < seconds, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)
    return time.monotonic() - started


def job_processes(store_path: Path) -> list[psutil.Process]:
    """Processes of jobs of a store."""
    return _with_words(store_path, "hfi.jobs.job_process")


def all_processes(store_path: Path) -> list[psutil.Process]:
    """Processes of jobs and workers of a store."""
    return _with_words(store_path, "")


def _with_words(store_path: Path, word: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        is_one = str(store_path) in words and any(word in text for text in words) and "hfi" in " ".join(words)
        if is_one and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            found.append(process)
    return found
