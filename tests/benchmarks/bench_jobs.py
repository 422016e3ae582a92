"""What watching jobs costs: the job that is watched, the page that lists a thousand, the start of the application.

    python tests/benchmarks/bench_jobs.py --seconds 20

Protocol. Watching: a worker runs a toy training of 100 steps a second; this process asks for the job, the list and the
end of the log once a second, as a page does; the processor time of the job's threads other than its training is
divided by the time that passed. The page itself never talks to the job process. Listing: 1,000 jobs in SQLite, the
median of nine calls. Start: from the command to the first answer of a server on an empty store. Wall-clock times mean
something on a quiet machine only, so processor times stand beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

import psutil

from hfi.jobs.queue import JobQueue
from hfi.jobs.start import start_worker, stop_worker
from storage import Store
from tests.faults.annotators import free_port, start_server
from tests.jobs.many_jobs import multiply_job
from tests.jobs.slow_job import SlowRequest
from tests.jobs.waiting import ENVIRONMENT, job_processes, wait_until

NUM_JOBS = 1000
NUM_LISTINGS = 9
STEP_SECONDS = 0.01


def measure_watching(path: Path, seconds: float) -> dict[str, float]:
    """Share of a job's time that goes into being watched, in per cent."""
    with Store.open(path) as store:
        queue = JobQueue(store)
        request = SlowRequest(num_steps=round(10 * seconds / STEP_SECONDS), seconds_per_step=STEP_SECONDS)
        job = queue.submit(request).job
        worker = start_worker(path, devices="cpu")
        try:
            wait_until(lambda: (found := queue.get_job(job.id).progress) and found.step > 0, "first step")
            (process,) = job_processes(path)
            before, started = _seconds_beside_training(process), time.monotonic()
            while time.monotonic() - started < seconds:
                queue.get_job(job.id)
                queue.list_jobs()
                queue.read_log(job.id, -2000)
                time.sleep(1.0)
            used, elapsed = _seconds_beside_training(process) - before, time.monotonic() - started
            queue.cancel(job.id)
        finally:
            stop_worker(worker)
            queue.close()
    return {"watched_per_cent_of_job": round(100 * used / elapsed, 2), "watched_seconds": round(elapsed, 1)}


def _seconds_beside_training(process: psutil.Process) -> float:
    """Processor time of all threads but the first, which trains."""
    return sum(row.user_time + row.system_time for row in process.threads() if row.id != process.pid)


def measure_listing(path: Path) -> dict[str, float]:
    """Milliseconds to list a thousand jobs: wall clock and processor."""
    with Store.open(path) as store:
        queue = JobQueue(store)
        multiply_job(queue, queue.submit(SlowRequest(name="many")).job.id, NUM_JOBS)
        wall, processor = [], []
        for _ in range(NUM_LISTINGS):
            started, used = time.perf_counter(), time.process_time()
            assert len(queue.list_jobs()) == NUM_JOBS
            wall.append(1000 * (time.perf_counter() - started))
            processor.append(1000 * (time.process_time() - used))
        queue.close()
    return {
        "list_1000_jobs_ms": round(statistics.median(wall), 1),
        "list_1000_jobs_processor_ms": round(statistics.median(processor), 1),
    }


def measure_start(path: Path) -> dict[str, float]:
    """Seconds from the command to the first answer."""
    Store.open(path).close()
    started = time.perf_counter()
    server = start_server(path, free_port())
    try:
        seconds, used = time.perf_counter() - started, psutil.Process(server.pid).cpu_times()
    finally:
        server.kill()
        server.wait()
    return {"start_seconds": round(seconds, 2), "start_processor_seconds": round(used.user + used.system, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    os.environ.update(ENVIRONMENT, HFI_ALLOW_EPHEMERAL="1")
    with tempfile.TemporaryDirectory() as folder:
        result = {
            **measure_watching(Path(folder) / "watched", arguments.seconds),
            **measure_listing(Path(folder) / "many"),
            **measure_start(Path(folder) / "empty"),
            "load_average": psutil.getloadavg()[0],
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
