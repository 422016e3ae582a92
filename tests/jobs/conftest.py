"""A store with a queue, and real workers in processes of their own that are gone when the test is."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hfi.jobs.queue import JobQueue
from hfi.jobs.start import start_worker, stop_worker
from storage import Store
from tests.jobs.waiting import ENVIRONMENT

StartWorker = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture(autouse=True)
def _kinds_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HFI_QUEUE_URL", raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with Store.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def queue(store: Store) -> Iterator[JobQueue]:
    """Its queue."""
    opened = JobQueue(store)
    yield opened
    opened.close()


@pytest.fixture
def workers(store: Store) -> Iterator[StartWorker]:
    """Starts workers of the store; those still there at the end are stopped."""
    started = []

    def start() -> subprocess.Popen[bytes]:
        started.append(start_worker(store.path, devices="cpu"))
        return started[-1]

    yield start
    for worker in started:
        stop_worker(worker)
