"""Which workers there are: each holds a lock on a file of its name while it lives, and touches it every few seconds.

    <store>/jobs/workers/default-myhost-cpu.json      {"host": ..., "process": ..., "started_at": ...}

On one machine the lock tells at once who is dead. Between machines that share the folder, the file's time does; it is
compared with the time of one's own file, so that both come from the same clock.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from hfi.errors import ConfigError, ConflictError

DEAD_AFTER_SECONDS = 60.0
LOCK_TRIES = 5


def worker_name(queue: str, devices: Sequence[str]) -> str:
    """The name of the worker of a queue on some devices of this machine."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", f"{queue}-{socket.gethostname()}-{'+'.join(devices)}")


def find_devices(text: str) -> list[list[str]]:
    """The devices of each worker: `auto` gives every GPU a worker of its own, or one worker on the CPU.

    Args:
        text: `auto`, `cpu`, or numbers of GPUs that every job gets together, such as `0` or `0,1`; `cpu,cpu` gives
            every job two processes.

    Raises:
        ConfigError: it is none of these.
    """
    if text == "auto":
        return [[number] for number in _gpu_numbers()] or [["cpu"]]
    devices = [device.strip() for device in text.split(",")]
    if not all(device.isdigit() for device in devices) and set(devices) != {"cpu"}:
        raise ConfigError(f"--devices is {text!r}, but must be auto, cpu, or numbers of GPUs such as 0 or 0,1.")
    return [devices]


def _gpu_numbers() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    words = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    found = subprocess.run(words, capture_output=True, text=True, timeout=30)
    return [line.strip() for line in found.stdout.splitlines() if line.strip().isdigit()]


class WorkerLock:
    """The lock of a live worker; a context manager."""

    def __init__(self, store_path: Path, name: str) -> None:
        """Take the lock.

        Raises:
            ConflictError: a worker of that name runs.
        """
        self.path = store_path / "jobs" / "workers" / f"{name}.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT)
        if not _is_locked(self._descriptor):
            os.close(self._descriptor)
            other = _read(self.path).get("process", "unknown")
            raise ConflictError(
                f"The worker {name} runs already (process {other}), and a device has one worker. Choose other "
                f"--devices, or another --queue."
            )
        content = {"host": socket.gethostname(), "process": os.getpid(), "started_at": time.time()}
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(content).encode(), 0)

    def __enter__(self) -> WorkerLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def beat(self) -> None:
        """Show that the worker lives."""
        os.utime(self.path)

    def release(self) -> None:
        """Let go of the name. The file stays: removing it would let two workers lock two files of one name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def dead_workers(store_path: Path, own_name: str) -> list[str]:
    """Names of the other workers that have died or ended."""
    folder = store_path / "jobs" / "workers"
    own_time = (folder / f"{own_name}.json").stat().st_mtime
    return [path.stem for path in sorted(folder.glob("*.json")) if path.stem != own_name and _is_dead(path, own_time)]


def live_workers(store_path: Path) -> list[str]:
    """Names of the workers that live, as far as this machine can tell."""
    folder = store_path / "jobs" / "workers"
    return [path.stem for path in sorted(folder.glob("*.json")) if not _is_dead(path, time.time())]


def _is_locked(descriptor: int) -> bool:
    """Take the lock; tried for a moment, because others take it for an instant to see who lives."""
    for _ in range(LOCK_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.1)
    return False


def _is_dead(path: Path, now: float) -> bool:
    if _read(path).get("host") != socket.gethostname():
        return now - path.stat().st_mtime > DEAD_AFTER_SECONDS
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
