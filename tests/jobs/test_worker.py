"""Workers and jobs as real processes: ends, errors, cancelling, and deaths at every place."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from PIL import Image

from hfi.job_requests import ExportRequest, ImportRequest
from hfi.jobs.queue import Job, JobQueue
from storage import Store
from storage.doctor import examine_store
from storage.files import path_sha256
from storage.records import JudgmentInput
from storage.snapshot import create_snapshot
from tests.jobs.conftest import StartWorker
from tests.jobs.slow_job import SlowRequest, expected_weights
from tests.jobs.waiting import all_processes, job_processes, wait_until
from tests.storage.builders import build_flag_store, judge_all, new_uuid

LONG = {"num_steps": 6000, "seconds_per_step": 0.01}


def ended(queue: JobQueue, job_id: str) -> Job:
    """The job when it has ended."""
    wait_until(lambda: queue.get_job(job_id).finished_at, f"end of {job_id}")
    return queue.get_job(job_id)


def has_steps(queue: JobQueue, job_id: str, num_steps: int) -> bool:
    """Whether a job has done that many steps."""
    progress = queue.get_job(job_id).progress
    return progress is not None and progress.step >= num_steps


def assert_nothing_is_left(store: Store) -> None:
    """No scratch folder, no open run, no finding of the doctor."""
    assert list((store.path / "tmp").iterdir()) == []
    assert store.list_runs(status="running") == []
    assert examine_store(store.path) == []


@pytest.mark.thorough
def test_jobs_end_well_or_say_why_not(store: Store, queue: JobQueue, workers: StartWorker) -> None:
    """In the order of their priorities; one that was killed goes on from its checkpoint; bad input is not retried."""
    crashing = queue.submit(SlowRequest(name="crash", fails="crash"), priority=5).job
    refused = queue.submit(SlowRequest(name="input", fails="input"), priority=9).job
    urgent = queue.submit(SlowRequest(name="urgent", num_steps=40, seconds_per_step=0.05), priority=1).job
    worker = workers()
    wait_until(lambda: has_steps(queue, urgent.id, 1), "first step")
    assert [job.state for job in queue.list_jobs()] == ["running", "waiting", "waiting"]

    done = ended(queue, urgent.id)
    assert (done.state, done.summary, done.error) == ("done", "Hashed.", "")
    run = store.get_run(done.run_id)
    assert run.metrics["weights"] == expected_weights(SlowRequest(name="urgent", num_steps=40))
    assert done.cost is not None and done.cost.attempts == 1
    assert done.cost.seconds >= 2.0 and 10 < done.cost.peak_memory_mib < 2000
    assert "slow                   done" in queue.read_log(done.id)[0]

    taken_up = ended(queue, crashing.id)
    assert taken_up.state == "done" and taken_up.cost is not None and taken_up.cost.attempts == 2
    figures = store.get_run(taken_up.run_id).metrics
    assert figures["first_step"] == 10 and figures["weights"] == expected_weights(SlowRequest(name="crash"))

    wrong = ended(queue, refused.id)
    assert (wrong.state, wrong.error) == ("failed", "Nobody flagged anything. Judge more pictures.")
    assert wrong.cost is not None and wrong.cost.attempts == 1
    assert "Traceback" not in queue.read_log(wrong.id)[0]
    assert done.started_at < taken_up.started_at < wrong.started_at  # type: ignore[operator]
    assert [run.status for run in store.list_runs()] == ["done", "done", "failed"]

    again = ended(queue, queue.submit(SlowRequest(name="crash", fails="crash")).job.id)
    assert (again.summary, again.run_id) == ("Found.", taken_up.run_id)
    assert worker.poll() is None
    assert_nothing_is_left(store)


@pytest.mark.parametrize("fails", ["", "deaf"])
def test_cancel_stops_a_job_within_five_seconds(
    store: Store, queue: JobQueue, workers: StartWorker, fails: str
) -> None:
    """Also one that does not listen; a retry goes on where it was."""
    job = queue.submit(SlowRequest(fails=fails, ballast_bytes=1000, checkpoint_every_n_steps=1, **LONG)).job
    workers()
    wait_until(lambda: has_steps(queue, job.id, 20), "20 steps")
    [process] = job_processes(store.path)
    assert queue.cancel(job.id).state == "cancelled"
    assert wait_until(lambda: not psutil.pid_exists(process.pid), "end of the process", 30.0) < 5.0
    wait_until(lambda: not store.list_runs(status="running"), "cancelled run")
    assert [run.status for run in store.list_runs()] == ["cancelled"]
    assert_nothing_is_left(store)
    if not fails:
        again = queue.retry(job.id).job
        wait_until(lambda: has_steps(queue, again.id, 20), "20 steps again")
        assert queue.get_job(again.id).run_id == store.list_runs()[0].id
        queue.cancel(again.id)


@pytest.mark.thorough
def test_killed_worker_takes_its_job_with_it_and_the_next_goes_on(
    store: Store, queue: JobQueue, workers: StartWorker
) -> None:
    request = SlowRequest(num_steps=200, seconds_per_step=0.01, checkpoint_every_n_steps=10, ballast_bytes=10)
    job = queue.submit(request).job
    worker = workers()
    wait_until(lambda: has_steps(queue, job.id, 30), "30 steps")
    [process] = job_processes(store.path)
    worker.kill()
    worker.wait()
    wait_until(lambda: not psutil.pid_exists(process.pid) or process.status() == "zombie", "death of the job", 10.0)
    assert queue.get_job(job.id).state == "running"
    workers()
    done = ended(queue, job.id)
    assert done.state == "done"
    figures = store.get_run(done.run_id).metrics
    assert figures["weights"] == expected_weights(request) and figures["first_step"] >= 30
    assert len(store.list_runs()) == 1
    assert_nothing_is_left(store)


@pytest.mark.thorough
def test_stopped_worker_leaves_its_job_for_the_next(store: Store, queue: JobQueue, workers: StartWorker) -> None:
    job = queue.submit(SlowRequest(**LONG)).job
    worker = workers()
    wait_until(lambda: has_steps(queue, job.id, 1), "first step")
    second = workers()
    assert second.wait(120) == 1  # one worker a device
    log = (store.path / "jobs" / "workers" / "default.log").read_text()
    assert f"runs already (process {worker.pid})" in log and "Traceback" not in log
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert all_processes(store.path) == []
    assert queue.get_job(job.id).state == "running" and list((store.path / "tmp").iterdir()) == []
    queue.cancel(job.id)
    workers()  # closes the run of what was cancelled while no worker was there
    wait_until(lambda: not store.list_runs(status="running"), "cancelled run")
    assert [run.status for run in store.list_runs()] == ["cancelled"]


@pytest.mark.thorough
def test_import_and_export_are_jobs(tmp_path: Path, workers: StartWorker, store: Store, queue: JobQueue) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(pictures / f"{number}.png")
    build_flag_store(tmp_path / "other").close()
    brought = queue.submit(ImportRequest(path=str(pictures), project="mine")).job
    missing = queue.submit(ImportRequest(path=str(tmp_path / "other"), project="not-a-source")).job
    workers()
    done = ended(queue, brought.id)
    assert done.summary == "Project 'mine': 3 images, 3 items, 0 judgments."
    assert ended(queue, missing.id).state == "failed"
    store.add_annotator("ada")
    judge_all(store, "mine", ["ada"], lambda lease, name: JudgmentInput(new_uuid(), name, "yes", lease.id))
    snapshot = create_snapshot(store, "mine")
    inside = queue.submit(ExportRequest(snapshot=snapshot.hash[:10])).job
    outside = queue.submit(ExportRequest(snapshot=snapshot.hash, folder=str(tmp_path / "dataset"))).job
    made = ended(queue, inside.id)
    [artifact] = store.list_artifacts(made.run_id)
    assert path_sha256(store.path / artifact.path)[0] == artifact.sha256
    assert store.get_run(made.run_id).snapshot_hash == snapshot.hash
    assert ended(queue, outside.id).summary == f"The dataset is in {tmp_path / 'dataset'}."
    assert os.listdir(tmp_path / "dataset")
    assert_nothing_is_left(store)
