"""The queue of jobs, for the command line and the pages: submit, list, look, cancel, retry.

    queue = JobQueue(store)
    job = queue.submit(EraseRequest(project="weapons"), user="ada").job
    queue.get_job(job.id).progress

Importing this module imports neither torch nor DBOS; the first call imports DBOS, which takes about a second. All
methods may be called from several threads.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hfi.errors import ConflictError, InvalidInputError, NotFoundError
from hfi.job_requests import JobRequest, parse_request, request_hash
from hfi.jobs.job_folder import JobCost, JobFolder, JobProgress
from hfi.jobs.prepare import prepare_request
from hfi.jobs.queue_database import WORKFLOW_NAME, explained, open_client, queue_name_of, queue_url_of
from storage import Store

if TYPE_CHECKING:
    from dbos import DBOSClient, WorkflowStatus

JobState = Literal["waiting", "running", "done", "failed", "cancelled"]
STATES: dict[str, JobState] = {
    "DELAYED": "waiting",
    "ENQUEUED": "waiting",
    "PENDING": "running",
    "SUCCESS": "done",
    "ERROR": "failed",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed",
    "CANCELLED": "cancelled",
}
ACTIVE: tuple[JobState, ...] = ("waiting", "running")
DEFAULT_QUEUE = "default"
DEFAULT_PRIORITY = 10
MAX_PRIORITY = 2**31 - 1
POLL_SECONDS = 0.5  # how often a worker looks for its next job


@dataclass(frozen=True)
class Job:
    """A job as it stands now; times are seconds since 1970 UTC.

    Args:
        id: kind, hash of the request, number: `erase-3f9c2a1b04-1`.
        worker: who has it, or had it last.
        summary: what came of it, when it is done.
        error: why it failed.
        run_id: the run in the store, as soon as it has one.
        progress: while it runs; with `get_job` also afterwards.
        cost, request: filled in by `get_job`.
    """

    id: str
    kind: str
    project: str
    state: JobState
    queue: str
    priority: int
    user: str
    worker: str
    created_at: float
    started_at: float | None
    finished_at: float | None
    summary: str = ""
    error: str = ""
    run_id: str = ""
    progress: JobProgress | None = None
    cost: JobCost | None = None
    request: dict[str, Any] | None = None


@dataclass(frozen=True)
class Submission:
    """A job, and whether this submission made it (False: the same thing is waiting or running already)."""

    job: Job
    is_new: bool


class JobQueue:
    """The jobs of one store."""

    def __init__(self, store: Store, queue_url: str = "") -> None:
        """Say where the queue is; nothing is opened before the first call.

        Args:
            store: whose jobs.
            queue_url: PostgreSQL URL of a shared queue; default: HFI_QUEUE_URL, else SQLite beside the store.
        """
        self.store = store
        self._queue_url = queue_url
        self._client: DBOSClient | None = None
        self._registered: set[str] = set()
        self._lock = threading.Lock()

    @property
    def client(self) -> DBOSClient:
        """The connection, opened on first use."""
        with self._lock:
            if self._client is None:
                self._client = open_client(self.store, queue_url_of(self.store.path, self._queue_url))
            return self._client

    def submit(
        self, request: JobRequest, *, queue: str = DEFAULT_QUEUE, priority: int = DEFAULT_PRIORITY, user: str = ""
    ) -> Submission:
        """Ask for a job; asking for what is waiting or running already gives that job.

        Args:
            request: what to do.
            queue: whose workers shall do it.
            priority: from 1 on; lower goes first.
            user: who asks, for lists.

        Raises:
            NotFoundError: the project, snapshot or path is not there, or there is no score model yet.
            InvalidInputError: the priority is not a whole number from 1 on.
        """
        from dbos import error as dbos_error

        if not 1 <= priority <= MAX_PRIORITY:
            raise InvalidInputError(f"The priority is {priority}, but must be from 1 (first) to {MAX_PRIORITY}.")
        request = self.prepare(request)
        stem = f"{request.kind}-{request_hash(request)[:10]}"
        earlier = self._find(workflow_id_prefix=f"{stem}-")
        for job in earlier:
            if job.state in ACTIVE:
                return Submission(self.get_job(job.id), is_new=False)
        job_id = f"{stem}-{1 + max((int(job.id.rpartition('-')[2]) for job in earlier), default=0)}"
        attributes = {"kind": request.kind, "project": request.project, "queue": queue}
        with explained():
            self.register(queue)
            try:
                self.client.enqueue(
                    {
                        "workflow_name": WORKFLOW_NAME,
                        "queue_name": queue_name_of(self.store, queue),
                        "workflow_id": job_id,
                        "workflow_id_reuse_policy": "reject",
                        "priority": priority,
                        "attributes": attributes,
                        **({"authenticated_user": user} if user else {}),
                    },
                    request.model_dump(mode="json"),
                )
            except dbos_error.DBOSWorkflowIDInUseError:  # the same thing, submitted at the same moment
                return Submission(self.get_job(job_id), is_new=False)
        return Submission(self.get_job(job_id), is_new=True)

    def prepare(self, request: JobRequest) -> JobRequest:
        """The request as `submit` would ask for it: its snapshot named, its paths absolute.

        Raises:
            NotFoundError: the project, snapshot or path is not there, or there is no score model yet.
        """
        return prepare_request(self.store, request, self._score_snapshot(request))

    def list_jobs(self, *, states: Sequence[JobState] = (), limit: int = 1000) -> list[Job]:
        """The newest jobs, newest first, or those in some states; with progress of those that run."""
        names = [name for name, state in STATES.items() if not states or state in states]
        return self._find(status=names, limit=limit, sort_desc=True)

    def get_job(self, job_id: str) -> Job:
        """One job, with request, progress and cost.

        Raises:
            NotFoundError: there is none of that id.
        """
        with explained():
            found = self.client.list_workflows(workflow_ids=[job_id], name=WORKFLOW_NAME)
        if not found:
            raise NotFoundError(f"There is no job {job_id!r}. List them: hfi jobs list.")
        return self._job(found[0], is_whole=True)

    def look_at(self, job_id: str) -> Job | None:
        """One job as in a list, without its request; None when there is none."""
        return next(iter(self._find(workflow_ids=[job_id])), None)

    def cancel(self, job_id: str) -> Job:
        """Take a job back: one that waits never starts, one that runs is stopped within seconds; others stay."""
        if self.get_job(job_id).state in ACTIVE:
            with explained():
                self.client.cancel_workflow(job_id)
        return self.get_job(job_id)

    def retry(self, job_id: str) -> Submission:
        """Ask again for what failed or was cancelled; it goes on from its last checkpoint.

        Raises:
            ConflictError: the job is done, or has not ended.
        """
        job = self.get_job(job_id)
        if job.state not in ("failed", "cancelled"):
            raise ConflictError(f"Job {job_id} is {job.state}; only a job that failed or was cancelled is retried.")
        return self.submit(parse_request(job.request or {}), queue=job.queue, priority=job.priority, user=job.user)

    def read_log(self, job_id: str, offset: int = 0) -> tuple[str, int]:
        """What a job printed from a byte on (negative: from the end), and where to read on."""
        return self.folder(self.get_job(job_id).id).read_log(offset)

    def folder(self, job_id: str) -> JobFolder:
        """The folder of a job that is known to be one: an id that somebody typed goes through `get_job` first."""
        return JobFolder(Path(self.store.path), job_id)

    def register(self, queue: str) -> None:
        """Make a queue known; one job at a time for each of its workers."""
        if queue not in self._registered:
            self.client.register_queue(
                queue_name_of(self.store, queue), worker_concurrency=1, polling_interval_sec=POLL_SECONDS
            )
            self._registered.add(queue)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._client is not None:
                self._client.destroy()
                self._client = None

    def _score_snapshot(self, request: JobRequest) -> str:
        """The snapshot of the newest score job of the project that has not ended, for the stages that build on it."""
        if request.kind not in ("invert", "erase"):
            return ""
        for job in self.list_jobs(states=ACTIVE):
            if (job.kind, job.project) == ("score", request.project):
                return str((self.get_job(job.id).request or {}).get("snapshot", ""))
        return ""

    def _find(self, **conditions: Any) -> list[Job]:
        with explained():
            found = self.client.list_workflows(name=WORKFLOW_NAME, load_input=False, **conditions)
        return [self._job(status) for status in found]

    def _job(self, status: WorkflowStatus, *, is_whole: bool = False) -> Job:
        attributes: dict[str, Any] = status.attributes or {}
        state = STATES[status.status]
        folder = self.folder(status.workflow_id)
        progress = folder.read_progress() if is_whole or state == "running" else None
        output = status.output if isinstance(status.output, dict) else {}
        return Job(
            id=status.workflow_id,
            kind=attributes.get("kind", ""),
            project=attributes.get("project", ""),
            state=state,
            queue=attributes.get("queue", DEFAULT_QUEUE),
            priority=status.priority or 0,
            user=status.authenticated_user or "",
            worker=status.executor_id or "",
            created_at=(status.created_at or 0) / 1000,
            started_at=status.dequeued_at / 1000 if status.dequeued_at else None,
            finished_at=status.completed_at / 1000 if status.completed_at else None,
            summary=output.get("summary", ""),
            error=str(status.error) if status.error is not None else "",
            run_id=output.get("run_id") or (progress.run_id if progress else ""),
            progress=progress,
            cost=folder.read_cost() if is_whole else None,
            request=status.input["args"][0] if is_whole and isinstance(status.input, dict) else None,
        )
