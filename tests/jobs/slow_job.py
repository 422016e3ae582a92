"""A kind of job for tests: a toy training without torch, with checkpoints, an artifact, and errors on demand.

Its "weights" are a hash that every step hashes on, so that a run that lost or repeated a step ends differently.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Literal

from pydantic import Field

from hfi.errors import NoFlaggedImagesError
from hfi.job_requests import JobKind, JobRequest, register_job_kind
from hfi.jobs.runs import StageResult, find_finished, recorded_run
from hfi.progress import Progress
from storage import Store

ARTIFACT = "weights"


class SlowRequest(JobRequest):
    """Steps, each taking a while."""

    kind: Literal["slow"] = "slow"
    name: str = Field("a", description="Tells jobs apart.")
    num_steps: int = Field(10, description="Steps.")
    seconds_per_step: float = Field(0.02, description="How long a step takes.")
    checkpoint_every_n_steps: int = Field(5, description="Steps between checkpoints.")
    fails: str = Field(
        "", description="`input`: bad input; `crash`: SIGKILL of itself each time; `deaf`: ignores SIGTERM."
    )
    ballast_bytes: int = Field(0, description="Size of a file it writes into its scratch folder and its artifact.")


def run_slow_job(store: Store, request: SlowRequest, progress: Progress) -> StageResult:
    """Hash `num_steps` times, from the last checkpoint on."""
    settings = request.model_dump(mode="json")
    done = find_finished(store, "slow", settings)
    if done is not None:
        return StageResult("Found.", done, dict(done.metrics))
    if request.fails == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with recorded_run(store, "slow", settings) as work:
        if request.fails == "input":
            raise NoFlaggedImagesError("Nobody flagged anything. Judge more pictures.")
        checkpoint = store.artifact_dir(work.run.id) / "checkpoint.json"
        first, weights = _load(checkpoint, request.name)
        (store.scratch / "unfinished").write_bytes(b"x" * request.ballast_bytes)
        progress.start("slow", request.num_steps)
        progress.advance(first)
        for step in range(first, request.num_steps):
            time.sleep(request.seconds_per_step)
            weights = hashlib.sha256(weights.encode()).hexdigest()
            progress.advance(1, loss=1 / (step + 1))
            if (step + 1) % request.checkpoint_every_n_steps == 0:
                _save(checkpoint, step + 1, weights)
        if request.fails == "crash" and first == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if not any(artifact.name == ARTIFACT for artifact in store.list_artifacts(work.run.id)):
            with store.writing_artifact(work.run.id, ARTIFACT, "model") as folder:
                (folder / "weights.txt").write_text(weights)
                (folder / "ballast").write_bytes(b"x" * request.ballast_bytes)
        checkpoint.unlink(missing_ok=True)
        work.metrics.update(weights=weights, first_step=first)
        progress.finish()
    return StageResult("Hashed.", work.run, dict(work.metrics))


def expected_weights(request: SlowRequest) -> str:
    """What an undisturbed run ends with."""
    weights = request.name
    for _ in range(request.num_steps):
        weights = hashlib.sha256(weights.encode()).hexdigest()
    return weights


def _load(path: Path, name: str) -> tuple[int, str]:
    try:
        saved = json.loads(path.read_text())
    except FileNotFoundError:
        return 0, name
    return saved["step"], saved["weights"]


def _save(path: Path, step: int, weights: str) -> None:
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps({"step": step, "weights": weights}))
    os.replace(unfinished, path)


register_job_kind(JobKind(SlowRequest, "tests.jobs.slow_job:run_slow_job"))
