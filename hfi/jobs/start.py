"""Start a worker beside the pages, and stop it. Imports neither torch nor the queue."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

STOP_SECONDS = 10.0


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
