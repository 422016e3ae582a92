"""What is checked and filled in when a job is submitted, so that bad input gets its message at once.

Importing this module never imports torch.
"""

from __future__ import annotations

from pathlib import Path

from hfi.errors import NotFoundError
from hfi.job_requests import (
    AttackRequest,
    EraseRequest,
    EvaluateRequest,
    ExportRequest,
    I2PRequest,
    ImportRequest,
    InvertRequest,
    JobRequest,
    ScoreRequest,
    VerdictRequest,
)
from hfi.jobs.runs import latest_run
from storage import Store
from storage.snapshot import create_snapshot, load_snapshot

OF_A_PROJECT = (
    ScoreRequest, InvertRequest, EraseRequest, EvaluateRequest, AttackRequest, I2PRequest, VerdictRequest,
)  # fmt: skip


def prepare_request(store: Store, request: JobRequest, score_snapshot: str = "") -> JobRequest:
    """The request with its snapshot named in full and its paths made absolute.

    Args:
        store: where the project is.
        request: as it was asked for.
        score_snapshot: the snapshot of a score job of this project that has not ended yet, if there is one.

    Raises:
        NotFoundError: the project, the snapshot or the path is not there, or there is no score model yet.
    """
    if isinstance(request, OF_A_PROJECT):
        store.get_project(request.project)
    if isinstance(request, ScoreRequest | InvertRequest | EraseRequest | ExportRequest) and request.snapshot:
        whole = load_snapshot(store, request.snapshot, with_judgments=False).hash
        return request.model_copy(update={"snapshot": whole} | _absolute(request))
    if isinstance(request, ScoreRequest):
        return request.model_copy(update={"snapshot": create_snapshot(store, request.project).hash})
    if isinstance(request, InvertRequest | EraseRequest):
        return request.model_copy(update={"snapshot": score_snapshot or _snapshot_of_score_run(store, request.project)})
    if isinstance(request, ImportRequest):
        return request.model_copy(update=_absolute(request))
    if isinstance(request, I2PRequest):
        prompts = str(_existing(request.config.prompts))
        return request.model_copy(update={"config": request.config.model_copy(update={"prompts": prompts})})
    return request


def _snapshot_of_score_run(store: Store, project: str) -> str:
    run = latest_run(store, "score", project)
    if run is None:
        raise NotFoundError(f"Project {project!r} has no score model yet, and no job makes one: run `hfi score` first.")
    return run.snapshot_hash


def _absolute(request: JobRequest) -> dict[str, str]:
    """The request's path as the worker, which runs in another folder, has to know it."""
    if isinstance(request, ExportRequest) and request.folder:
        return {"folder": str(Path(request.folder).absolute())}
    if isinstance(request, ImportRequest):
        return {"path": str(_existing(request.path))}
    return {}


def _existing(path: str) -> Path:
    place = Path(path).absolute()
    if not place.exists():
        raise NotFoundError(f"There is no file or folder {path!r}. Check the path.")
    return place
