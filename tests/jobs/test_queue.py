"""The queue without a worker: one job for one thing, states, lists, and rows that are JSON and nothing else."""

from __future__ import annotations

import base64
import json
import pickle
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from hfi.errors import ConflictError, InvalidInputError, NotFoundError, QueueError
from hfi.jobs.queue import JobQueue
from hfi.jobs.queue_database import queue_url_of
from storage import Store
from tests.jobs.many_jobs import multiply_job
from tests.jobs.slow_job import SlowRequest


def test_same_request_of_two_people_is_one_job(queue: JobQueue) -> None:
    first = queue.submit(SlowRequest(name="a"), user="ada")
    second = queue.submit(SlowRequest(name="a"), user="bo")
    other = queue.submit(SlowRequest(name="b"), user="bo")
    assert first.is_new and not second.is_new and other.is_new
    assert second.job.id == first.job.id != other.job.id
    assert (second.job.user, second.job.state, second.job.kind) == ("ada", "waiting", "slow")


def test_same_request_at_the_same_moment_is_one_job(queue: JobQueue) -> None:
    queue.list_jobs()  # opens the queue
    with ThreadPoolExecutor(4) as threads:
        submissions = list(threads.map(lambda _: queue.submit(SlowRequest(name="a")), range(4)))
    assert sum(submission.is_new for submission in submissions) == 1
    assert len({submission.job.id for submission in submissions}) == len(queue.list_jobs()) == 1


def test_cancelled_job_can_be_retried_and_nothing_else(queue: JobQueue) -> None:
    job = queue.submit(SlowRequest(name="a"), priority=3, user="ada").job
    with pytest.raises(ConflictError, match="is waiting; only a job that failed or was cancelled is retried"):
        queue.retry(job.id)
    assert queue.cancel(job.id).state == "cancelled"
    assert queue.cancel(job.id).state == "cancelled"
    again = queue.retry(job.id).job
    assert (again.state, again.priority, again.user) == ("waiting", 3, "ada")
    assert again.id == job.id.removesuffix("-1") + "-2"
    assert [found.id for found in queue.list_jobs(states=["waiting"])] == [again.id]


def test_priority_that_is_none_gets_a_sentence(queue: JobQueue) -> None:
    with pytest.raises(InvalidInputError, match="The priority is 0, but must be from 1"):
        queue.submit(SlowRequest(), priority=0)


@pytest.mark.parametrize("typed", ["erase-0000000000-1", "../../etc", ""])
def test_unknown_job_gets_a_sentence(queue: JobQueue, typed: str) -> None:
    for ask in (queue.get_job, queue.cancel, queue.retry, queue.read_log):
        with pytest.raises(NotFoundError, match="There is no job"):
            ask(typed)


def test_rows_are_json_and_a_pickle_is_never_loaded(queue: JobQueue, tmp_path: Path) -> None:
    job = queue.submit(SlowRequest(name="a")).job
    trap = tmp_path / "trap"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return trap.touch, ()

    with closing(sqlite3.connect(queue.store.path / "queue.db")) as connection, connection:
        rows = connection.execute("SELECT inputs FROM workflow_input").fetchall()
        assert [json.loads(text)["positionalArgs"][0]["name"] for (text,) in rows] == ["a"]
        assert connection.execute("SELECT DISTINCT serialization FROM workflow_status").fetchall() == [
            ("portable_json",)
        ]
        text = base64.b64encode(pickle.dumps(Trap())).decode()
        connection.execute("UPDATE workflow_input SET inputs = ?", (text,))
        connection.execute("UPDATE workflow_status SET serialization = 'py_pickle'")
    assert queue.get_job(job.id).request is None
    assert not trap.exists()


def test_a_thousand_jobs_are_listed_at_once(queue: JobQueue) -> None:
    multiply_job(queue, queue.submit(SlowRequest(name="a")).job.id, 1000)
    found = queue.list_jobs()  # imports what listing needs
    assert len(found) == 1000 and {job.state for job in found} == {"waiting"}
    seconds = []
    for _ in range(3):
        before = time.process_time()
        queue.list_jobs()
        seconds.append(time.process_time() - before)
    assert min(seconds) < 1.0, "one by one would take several; how fast it is, docs/LOG.md says"


def test_queue_url_is_explained() -> None:
    with pytest.raises(QueueError, match="postgresql://user:password@host/database"):
        queue_url_of(Path("store"), "mysql://host/jobs")


def test_unreachable_queue_is_explained(store: Store) -> None:
    jobs = JobQueue(store, "postgresql://nobody@127.0.0.1:9/jobs?connect_timeout=2")
    with pytest.raises(QueueError, match="The queue of jobs cannot be reached"):
        jobs.list_jobs()


def test_starting_a_worker_needs_neither_torch_nor_the_queue() -> None:
    code = "import sys, hfi.jobs.start, hfi.jobs.queue, hfi.cli_jobs; print(*{m.split('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "hfi" in loaded and not {"torch", "dbos", "sqlalchemy", "diffusers"} & set(loaded)
