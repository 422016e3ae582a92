"""The worker: takes jobs of one queue, one at a time, and runs each in a process of its own. Never imports torch.

A worker is one device (or several that a job shares) on one machine. Its name, held by a file lock, is what DBOS knows
it by: a worker that starts under the name of a dead one takes that one's jobs up again.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hfi.job_requests import parse_request
from hfi.jobs.attempt import AttemptOutcome, Patience, Standing, run_attempt
from hfi.jobs.queue import ACTIVE, DEFAULT_QUEUE, Job, JobQueue
from hfi.jobs.queue_database import (
    APPLICATION_VERSION,
    WORKFLOW_NAME,
    application_name,
    ensure_database,
    queue_name_of,
    queue_url_of,
    refuse_pickle,
)
from hfi.jobs.worker_files import WorkerLock, dead_workers, worker_name
from storage import Store

LOOK_EVERY_SECONDS = 0.5
BEAT_EVERY_SECONDS = 5.0
STOP_WITHIN_SECONDS = 8.0
UNWANTED = {"status": "unwanted"}


class Worker:
    """One device's worker."""

    def __init__(self, store: Store, queue: str, devices: Sequence[str], queue_url: str = "") -> None:
        """Name it; `run` does everything else.

        Args:
            store: whose jobs it does.
            queue: which of its queues.
            devices: GPU numbers, or `cpu`; a job gets all of them.
            queue_url: where the queue is; default: see `queue_url_of`.
        """
        self.store, self.queue_name, self.devices = store, queue, list(devices)
        self.name = worker_name(queue, self.devices)
        self.url = queue_url_of(store.path, queue_url)
        self.queue = JobQueue(store, self.url)
        self._job_id = ""  # the job that runs
        self._idle = threading.Event()
        self._idle.set()
        self._stopping = threading.Event()
        self._missed = 0

    def run(self, *, until_empty: bool = False, parent: int = 0) -> None:
        """Work until told to stop (SIGTERM, Ctrl-C), then leave the process; a job that runs goes on another time.

        Args:
            until_empty: stop when no job of the queue is waiting or running.
            parent: stop when this process is no longer the parent (0: don't look).

        Raises:
            ConflictError: a worker of this name runs already.
        """
        with WorkerLock(self.store.path, self.name) as lock:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self._stopping.set())
            self.settle_runs()
            self._launch()
            _say(f"Worker {self.name} takes jobs of queue {self.queue_name!r}.")
            beat = 0.0
            while not self._stopping.wait(LOOK_EVERY_SECONDS):
                if time.monotonic() - beat >= BEAT_EVERY_SECONDS:
                    lock.beat()
                    with explaining():
                        self._take_up_lost_jobs()
                    beat = time.monotonic()
                if (parent and os.getppid() != parent) or (until_empty and self._is_empty()):
                    break
            self._stopping.set()
            self._idle.wait(STOP_WITHIN_SECONDS)
            lock.release()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # without a word to the queue: what runs stays ours, to be taken up again

    def do_job(self, job_id: str, request: dict[str, Any]) -> dict[str, Any]:
        """The workflow of a job: attempts until one ends well or no further one makes sense.

        Returns:
            Summary, run and cost of the attempt that ended well.

        Raises:
            PortableWorkflowError: the job failed; its message is for people.
        """
        self._job_id = job_id
        try:
            return self._attempts(job_id, request)
        except Exception as error:
            self._give_back(job_id, error)
            raise
        finally:
            self._job_id = ""

    def _attempts(self, job_id: str, request: dict[str, Any]) -> dict[str, Any]:
        from dbos import DBOS, PortableWorkflowError

        patience = Patience()
        for number in itertools.count(1):
            outcome = DBOS.run_step({"name": f"attempt {number}"}, self.attempt, job_id, request)
            if outcome["status"] == "done" or not outcome.get("is_worth_retrying"):
                break
            if patience.is_over(outcome.get("stage", ""), outcome.get("step", 0)):
                break
            DBOS.sleep(patience.pause_seconds)
        if outcome["status"] == "done":
            return outcome
        DBOS.run_step({"name": "settle"}, self.settle_run, job_id, "failed")
        raise PortableWorkflowError(outcome["error"], outcome["error_kind"])

    def attempt(self, job_id: str, request: dict[str, Any]) -> dict[str, Any]:
        """One process of the job, from start to end; a step of the workflow."""
        standing = self._standing(job_id)
        if standing != "wanted":
            return self._unwanted(job_id, standing)
        self._idle.clear()
        try:
            parse_request(request)  # before a process is started for what can't be read
            folder = self.queue.folder(job_id)
            outcome = run_attempt(folder, request, self.devices, lambda: self._standing(job_id))
        except Exception as error:
            return _failure(error)
        finally:
            self._idle.set()
        if outcome.standing != "wanted":
            return self._unwanted(job_id, outcome.standing)
        _say(f"{job_id}: {outcome.result.get('status', 'killed')}")
        progress = folder.read_progress()
        reached = {"stage": progress.stage, "step": progress.step} if progress else {}
        return (outcome.result or _killed(outcome)) | reached

    def settle_run(self, job_id: str, status: str) -> None:
        """Close the run that a job left open; a run that ended keeps its status."""
        folder = self.queue.folder(job_id)
        progress, cost = folder.read_progress(), folder.read_cost()
        if progress is None or not progress.run_id:
            return
        run = self.store.get_run(progress.run_id)
        if run.status == "running":
            self.store.finish_run(run.id, status, run.metrics, cost.seconds, cost.peak_memory_mib)

    def settle_runs(self) -> None:
        """Close the runs of jobs that were cancelled while no worker was there, and remove what they left behind."""
        open_runs = {run.id for run in self.store.list_runs(status="running")}
        for path in (self.store.path / "jobs").glob("*/request.json"):
            folder = self.queue.folder(path.parent.name)
            progress = folder.read_progress()
            if folder.scratch.exists() or (progress is not None and progress.run_id in open_runs):
                state = self.queue.get_job(folder.job_id).state
                if state in ("cancelled", "failed"):
                    self.settle_run(folder.job_id, state)
                if state != "running":
                    folder.remove_scratch()

    def _launch(self) -> None:
        from dbos import DBOS, DBOSPortableJSONSerializer

        refuse_pickle()
        ensure_database(self.url)
        self.queue.register(self.queue_name)
        DBOS(
            config={
                "name": application_name(self.store),
                "system_database_url": self.url,
                "serializer": DBOSPortableJSONSerializer(),
                "executor_id": self.name,
                "application_version": APPLICATION_VERSION,
                "log_level": "WARNING",
                "max_executor_threads": 8,
            }
        )

        @DBOS.workflow(name=WORKFLOW_NAME, max_recovery_attempts=None)
        def job(request: dict[str, Any]) -> dict[str, Any]:
            return self.do_job(str(DBOS.workflow_id), request)

        DBOS.listen_queues([queue_name_of(self.store, self.queue_name)])
        DBOS.launch()

    def _standing(self, job_id: str) -> Standing:
        """What the job is to this worker now; while the queue can't be asked, the job goes on."""
        if self._stopping.is_set():
            return "stopping"
        try:
            job = self.queue.look_at(job_id)
        except Exception as error:
            _say(f"{job_id}: {error}")
            return "wanted"
        if job is not None and job.state == "cancelled":
            return "cancelled"
        return "wanted" if self._has(job) else "lost"

    def _has(self, job: Job | None) -> bool:
        return job is not None and (job.state, job.worker) == ("running", self.name)

    def _give_back(self, job_id: str, error: Exception) -> None:
        """Put a job back into the queue after the queue itself failed (a full disk), as soon as it can be written.

        What the queue does not know about a job is no outcome of the job; an error of the job is one, and stays.
        """
        from dbos import DBOS, PortableWorkflowError

        if isinstance(error, PortableWorkflowError):
            return
        _say(f"{job_id}: {error}")
        while not self._stopping.wait(1):
            with suppress(Exception):
                DBOS._recover_pending_workflows([self.name])
                if not self._has(self.queue.look_at(job_id)):
                    return

    def _unwanted(self, job_id: str, standing: Standing) -> dict[str, Any]:
        """After a job was stopped; when the worker itself stops, this never returns, so that nothing is recorded."""
        _say(f"{job_id}: {standing}")
        if standing == "cancelled":
            self.settle_run(job_id, "cancelled")
        while standing == "stopping":
            time.sleep(1)
        return UNWANTED | {"error": f"The job was {standing}.", "error_kind": standing}

    def _take_up_lost_jobs(self) -> None:
        """Put back into the queue what dead workers had, and what this one has but does not do."""
        from dbos import DBOS

        names = dead_workers(self.store.path, self.name)
        mine = [job for job in self.queue.list_jobs(states=("running",)) if job.worker == self.name]
        # Twice in a row: between taking a job and starting it, it is neither waiting nor done.
        self._missed = self._missed + 1 if mine and not self._job_id else 0
        if self._missed >= 2:
            names.append(self.name)
        if names:
            DBOS._recover_pending_workflows(names)

    def _is_empty(self) -> bool:
        with explaining():
            return not any(job.queue == self.queue_name for job in self.queue.list_jobs(states=ACTIVE))
        return False


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def explaining() -> Iterator[None]:
    """A worker outlives whatever its queue is up to: what goes wrong is said, and tried again."""
    try:
        yield
    except Exception as error:
        _say(f"worker: {error}")


def _killed(outcome: AttemptOutcome) -> dict[str, Any]:
    """What to say of a process that wrote no result."""
    reason = (
        "It was killed, most likely because memory ran out: use a smaller batch size."
        if outcome.exit_code == -signal.SIGKILL
        else f"Its process ended with exit code {outcome.exit_code}; see its log."
    )
    return {"status": "failed", "error": reason, "error_kind": "JobKilled", "is_worth_retrying": True}


def _failure(error: Exception) -> dict[str, Any]:
    """What to say when the process could not even be started."""
    from hfi.cli_errors import explain_error
    from hfi.jobs.runs import is_worth_retrying

    sentence, _ = explain_error(error)
    is_worth = is_worth_retrying(error) or isinstance(error, OSError)
    return {
        "status": "failed",
        "error": sentence,
        "error_kind": type(error).__name__,
        "is_worth_retrying": is_worth,
    }


def run_worker(
    store_path: Path,
    queue: str = DEFAULT_QUEUE,
    devices: Sequence[str] = ("cpu",),
    queue_url: str = "",
    *,
    until_empty: bool = False,
    parent: int = 0,
) -> None:
    """Work on a store's queue; see `Worker.run`. Does not come back."""
    with Store.open(store_path, create=False) as store:
        Worker(store, queue, devices, queue_url).run(until_empty=until_empty, parent=parent)
