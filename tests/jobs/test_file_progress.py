"""Progress that others read while a job runs: newest step soon, cheap for the job, whole at every moment."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hfi.jobs.file_progress import MAX_CURVE_POINTS, FileProgress
from hfi.jobs.job_folder import JobFolder
from hfi.progress import Progress
from tests.jobs.waiting import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    """A job's folder, prepared."""
    made = JobFolder(tmp_path, "erase-0000000000-1")
    made.prepare({"kind": "erase"})
    return made


def test_reader_sees_the_newest_step_while_the_next_takes_long(folder: JobFolder) -> None:
    with FileProgress(folder) as progress:
        assert isinstance(progress, Progress)
        progress.set_run("run-1")
        progress.start("erase", 300)
        time.sleep(0.6)
        progress.advance(7, loss=0.5)
        waited = wait_until(lambda: (found := folder.read_progress()) and found.step == 7, "step 7", 2.0)
        found = folder.read_progress()
        assert found is not None and waited < 2.0
        assert (found.stage, found.of, found.figures, found.run_id) == ("erase", 300, {"loss": 0.5}, "run-1")
        progress.advance(100)
        wait_until(lambda: (found := folder.read_progress()) and found.seconds_left, "expected end")


def test_curve_keeps_few_points_from_start_to_end(folder: JobFolder) -> None:
    with FileProgress(folder) as progress:
        progress.start("erase", 5000)
        for step in range(5000):
            progress.advance(1, loss=1 / (step + 1))
    found = folder.read_progress()
    assert found is not None and found.step == 5000
    steps = [step for step, _ in found.curve]
    assert MAX_CURVE_POINTS / 4 < len(steps) <= MAX_CURVE_POINTS
    assert steps == sorted(steps) and steps[0] == 1 and steps[-1] > 4900


def test_progress_costs_less_than_a_hundredth(folder: JobFolder) -> None:
    """Two writes a second with the largest curve there is, and a call each of a hundred steps a second."""
    with FileProgress(folder) as progress:
        progress.start("erase", 10_000)
        before = time.process_time()
        for step in range(1000):
            progress.advance(1, loss=1 / (step + 1))
        seconds_per_call = (time.process_time() - before) / 1000
        before = time.process_time()
        for _ in range(20):
            progress._write()
        seconds_per_write = (time.process_time() - before) / 20
    assert 100 * seconds_per_call + 2 * seconds_per_write < 0.01


def test_log_is_read_on_from_where_it_was(folder: JobFolder) -> None:
    assert folder.read_log() == ("", 0)
    folder.log_path.write_text("one\ntwo\n")
    assert folder.read_log(-4) == ("two\n", 8)
    with open(folder.log_path, "a") as log:
        log.write("three\n")
    assert folder.read_log(8) == ("three\n", 14)
    assert folder.read_log(99) == ("", 14)


def test_cost_sums_attempts_and_takes_the_largest_memory(folder: JobFolder) -> None:
    folder.add_attempt(1.5, 300.0, "exit code -9")
    folder.add_attempt(2.0, 200.0, "done")
    cost = folder.read_cost()
    assert (cost.attempts, cost.seconds, cost.peak_memory_mib) == (2, 3.5, 300.0)
