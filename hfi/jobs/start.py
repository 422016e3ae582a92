"""Start a worker beside the pages, keep one there, and stop it. Imports neither torch nor the queue."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

STOP_SECONDS = 10.0
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 1.0, 60.0  # before a worker that died is started again
LONG_LIFE_SECONDS = 10.0  # one that lived shorter could not begin: the pause doubles


def start_worker(
    store_path: Path | str, queue: str = "default", devices: str = "auto", queue_url: str = ""
) -> subprocess.Popen[bytes]:
    """Start `hfi work` for a store; it ends by itself when this process ends, however that happens.

    Args:
        store_path: the store's folder.
        queue: whose jobs it takes.
        devices: as `hfi work --devices`.
        queue_url: PostgreSQL URL of a shared queue; default: the environment's HFI_QUEUE_URL, else SQLite.

    Returns:
        The worker's process. It has ended at once when another worker has the device; that one does the jobs.
    """
    log = Path(store_path) / "jobs" / "workers" / f"{queue}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "hfi.cli", "work", "--store", str(store_path), "--queue", queue]
    words += ["--devices", devices, "--with-parent", str(os.getpid())]
    environment = os.environ | ({"HFI_QUEUE_URL": queue_url} if queue_url else {})
    with open(log, "ab") as output:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)


def stop_worker(worker: subprocess.Popen[bytes], timeout_seconds: float = STOP_SECONDS) -> None:
    """Stop a worker and its job; the job goes on when the next worker starts."""
    worker.terminate()
    try:
        worker.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


class WorkerKeeper:
    """A worker beside the pages that is started again whenever it dies: killed, out of memory, or by a full disk.

    One that ends at once found another worker on its device, or no space to begin; it is tried again after a while.
    """

    def __init__(self, store_path: Path | str, queue: str = "default", devices: str = "auto") -> None:
        """As `start_worker`; nothing is started yet."""
        self._words = (store_path, queue, devices)
        self._worker: subprocess.Popen[bytes] | None = None
        self._ending = threading.Event()
        self._lock = threading.Lock()  # no worker is started once the end has begun
        self._thread = threading.Thread(target=self._keep, name="worker keeper", daemon=True)

    def start(self) -> None:
        """Start the worker and watch over it."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the worker and its job; the job goes on when the next worker starts."""
        with self._lock:
            self._ending.set()
        if self._worker is not None:
            stop_worker(self._worker)
        self._thread.join()

    def _keep(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._ending.is_set():
            began = time.monotonic()
            with suppress(OSError):  # no space for its log, no room for a process: later, perhaps
                self._start()
            if self._worker is not None:
                self._worker.wait()
            is_long = time.monotonic() - began >= LONG_LIFE_SECONDS
            pause = FIRST_PAUSE_SECONDS if is_long else min(2 * pause, LAST_PAUSE_SECONDS)
            self._ending.wait(pause)

    def _start(self) -> None:
        with self._lock:
            if not self._ending.is_set():
                self._worker = start_worker(*self._words)
