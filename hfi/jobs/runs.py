"""How a stage becomes a recorded run: found when it was done before, taken up when it was interrupted, measured when
it ends.

Importing this module never imports torch.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from hfi.config import JobConfig
from hfi.errors import DeviceError, NoSpaceError, StoreBusyError
from storage import Store
from storage.records import Run, config_hash


@dataclass(frozen=True)
class StageResult:
    """What a stage gives back: a sentence for people, the run that made it, and its figures."""

    summary: str
    run: Run
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass
class RunInProgress:
    """The run a stage is working on; `metrics` are stored when it ends well."""

    run: Run
    metrics: dict[str, Any] = field(default_factory=dict)


def run_settings(config: JobConfig, project: str, **inputs: Any) -> dict[str, Any]:
    """Everything that decides what a stage makes: its configuration and the identities of its inputs."""
    return {"project": project, "config": config.model_dump(mode="json"), "inputs": inputs}


def find_finished(store: Store, kind: str, settings: Mapping[str, Any]) -> Run | None:
    """The run that already did exactly this, if there is one."""
    return store.find_run(kind, config_hash(settings))


def latest_run(store: Store, kind: str, project: str) -> Run | None:
    """The newest finished run of a kind in a project."""
    runs = [run for run in store.list_runs(kind=kind, status="done") if run.config.get("project") == project]
    return runs[-1] if runs else None


_announce: ContextVar[Callable[[Run], None]] = ContextVar("announce", default=lambda run: None)


@contextmanager
def announcing_runs(announce: Callable[[Run], None]) -> Iterator[None]:
    """Tell `announce` of every run that starts, or is taken up, within the block."""
    token = _announce.set(announce)
    try:
        yield
    finally:
        _announce.reset(token)


def is_worth_retrying(error: BaseException) -> bool:
    """Whether the same stage may end well the next time, because what was missing may be there again."""
    from hfi.cli_errors import is_no_space

    if isinstance(error, NoSpaceError | StoreBusyError | DeviceError | MemoryError) or is_no_space(error):
        return True
    return type(error).__name__ == "OutOfMemoryError" or isinstance(error, ConnectionError | TimeoutError)


@contextmanager
def recorded_run(
    store: Store, kind: str, settings: Mapping[str, Any], snapshot_hash: str | None = None
) -> Iterator[RunInProgress]:
    """Start a run, or take up the one that was interrupted; record how it ended, its seconds and its peak memory.

    An interruption (Ctrl-C, kill), and an error that may be gone the next time, leave the run open, so that the same
    command goes on with it and its checkpoints.
    """
    run = _interrupted_run(store, kind, settings)
    if run is None:
        run = store.start_run(kind, settings, snapshot_hash, settings.get("inputs"))
    _announce.get()(run)
    work = RunInProgress(run)
    started = time.monotonic()
    try:
        yield work
    except Exception as error:
        if not is_worth_retrying(error):
            store.finish_run(run.id, "failed", work.metrics, time.monotonic() - started, peak_memory_mib())
        raise
    work.run = store.finish_run(run.id, "done", work.metrics, time.monotonic() - started, peak_memory_mib())


def _interrupted_run(store: Store, kind: str, settings: Mapping[str, Any]) -> Run | None:
    """The open run of exactly this, or the one that somebody cancelled, open again."""
    found = store.find_run(kind, config_hash(settings), status="running")
    if found is None:
        cancelled = store.find_run(kind, config_hash(settings), status="cancelled")
        found = store.reopen_run(cancelled.id) if cancelled is not None else None
    return found


def peak_memory_mib() -> float:
    """Largest resident size of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
