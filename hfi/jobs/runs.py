"""How a stage becomes a recorded run: found when it was done before, taken up when it was interrupted, measured when
it ends.

Importing this module never imports torch.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hfi.config import JobConfig
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


@contextmanager
def recorded_run(
    store: Store, kind: str, settings: Mapping[str, Any], snapshot_hash: str | None = None
) -> Iterator[RunInProgress]:
    """Start a run, or take up the one that was interrupted; record how it ended, its seconds and its peak memory.

    An interruption (Ctrl-C, kill) leaves the run open, so that the same command goes on with it and its checkpoints.
    """
    interrupted = store.find_run(kind, config_hash(settings), status="running")
    run = interrupted or store.start_run(kind, settings, snapshot_hash, settings.get("inputs"))
    work = RunInProgress(run)
    started = time.monotonic()
    try:
        yield work
    except Exception:
        store.finish_run(run.id, "failed", work.metrics, time.monotonic() - started, peak_memory_mib())
        raise
    work.run = store.finish_run(run.id, "done", work.metrics, time.monotonic() - started, peak_memory_mib())


def peak_memory_mib() -> float:
    """Largest resident size of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
