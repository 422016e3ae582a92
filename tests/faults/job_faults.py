"""Faults at random moments over a queue of short jobs: does every job end once, in the right state, with whole files?

    sudo python tests/faults/job_faults.py --rounds 50

Protocol: a queue is filled with 20 short jobs (toy trainings with checkpoints, and imports) and a worker is started by
a stand-in for the pages. Each round waits a random moment, at most as long as a job takes on this machine, and then
does one of: SIGKILL of the worker, of the job, of the stand-in for the pages; cancel of a random job; a disk that is
full for two seconds. The stand-in keeps a worker as `hfi ui` does, and is itself started again when it died. When the
queue runs empty it is filled again. At the end every job must be done, or cancelled if it was cancelled; what is done
has the weights of an undisturbed run and an artifact with the recorded hash; no process is left, no scratch folder, no
open run, and the doctor finds no error. A job that was itself hit in five attempts in a row without getting further is
given up, as it should be: it must say so, and is counted apart. A full disk needs the right to mount a file system in
memory; without it that fault is left out, and the result says so.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[2]))

import psutil
from PIL import Image

from hfi.job_requests import ImportRequest, JobRequest
from hfi.jobs.attempt import MAX_ATTEMPTS
from hfi.jobs.queue import ACTIVE, Job, JobQueue
from storage import Store
from storage.doctor import examine_store
from storage.files import path_sha256
from tests.jobs.slow_job import SlowRequest, expected_weights
from tests.jobs.waiting import ENVIRONMENT, all_processes, job_processes, wait_until

FAULTS = ("kill worker", "kill job", "kill web", "cancel", "disk full")
DISK_MIB = 64
FULL_SECONDS = 2.0
STOP_SECONDS = 5.0
# What `hfi ui` does about jobs, without the pages: it keeps a worker, which ends when it ends.
WEB = """
import signal, sys
from hfi.jobs.start import WorkerKeeper
WorkerKeeper(sys.argv[1], devices="cpu").start()
signal.pause()
"""


class Drill:
    """One store, its queue, and the process that stands in for the pages."""

    def __init__(self, disk: Path, chooser: random.Random, num_jobs: int) -> None:
        """Make the store and some pictures to import."""
        self.disk, self.chooser, self.num_jobs = disk, chooser, num_jobs
        self.store = Store.open(disk / "store")
        self.queue = JobQueue(self.store)
        self.requests: dict[str, JobRequest] = {}
        self.cancelled: set[str] = set()
        self.cancel_seconds: list[float] = []
        self.web: subprocess.Popen[bytes] | None = None
        self.done_faults: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()  # times that a job's own process was killed or had no space
        self.given_up: list[str] = []
        self.pictures = disk / "pictures"
        self.pictures.mkdir()
        for number in range(5):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(self.pictures / f"{number}.png")

    def fill(self) -> None:
        """Submit the queue's jobs."""
        for number in range(self.num_jobs):
            name = f"job {len(self.requests)}"
            request: JobRequest
            if number % 5 == 4:
                request = ImportRequest(path=str(self.pictures), project=name)
            else:
                steps = self.chooser.randint(5, 60)
                request = SlowRequest(name=name, num_steps=steps, ballast_bytes=50_000)
            self.requests[self.queue.submit(request, priority=self.chooser.randint(1, 3)).job.id] = request

    def ensure_worker(self) -> None:
        """Start the pages' stand-in, which keeps a worker, unless it is there."""
        if self.web is not None and self.web.poll() is None:
            return
        wait_until(lambda: not all_processes(self.store.path), "end of the worker before")
        words = [sys.executable, "-c", WEB, str(self.store.path)]
        self.web = subprocess.Popen(words, stdin=subprocess.DEVNULL)

    def is_at_work(self) -> bool:
        """Whether a job runs, or none is left; what died of the fault before is replaced."""
        self.ensure_worker()
        return bool(job_processes(self.store.path)) or not self.active()

    def situation(self) -> str:
        """What can be seen of a queue that stands still."""
        lines = [f"{job.id} {job.state} {job.error}" for job in self.queue.list_jobs()]
        lines += [f"{process.pid} {process.cmdline()}" for process in all_processes(self.store.path)]
        for log in sorted(self.store.path.rglob("*.log")):
            lines += [f"--- {log}", log.read_text(errors="replace")[-1500:]]
        return "\n".join(lines)

    def active(self) -> list[Job]:
        """Jobs that have not ended."""
        return self.queue.list_jobs(states=ACTIVE)

    def strike(self, fault: str) -> None:
        """Do one fault; count it if there was something to hit."""
        strikes: dict[str, Callable[[], bool]] = {
            "kill worker": lambda: self._kill(self._workers()),
            "kill job": self._kill_job,
            "kill web": self._kill_web,
            "cancel": self._cancel,
            "disk full": self._fill_disk,
        }
        self.done_faults[fault] += strikes[fault]()

    def _workers(self) -> list[psutil.Process]:
        others = {process.pid for process in job_processes(self.store.path)}
        if self.web is not None:
            others.add(self.web.pid)
        return [process for process in all_processes(self.store.path) if process.pid not in others]

    def _kill(self, processes: list[psutil.Process]) -> bool:
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                return False
        return bool(processes)

    def _kill_job(self) -> bool:
        self._count_hit()
        return self._kill(job_processes(self.store.path))

    def _count_hit(self) -> None:
        """Remember whose process is hit."""
        for job_id in self.requests:
            self.hits[job_id] += self._process_of(job_id)

    def seconds_of_a_job(self) -> float:
        """How long a job takes here, as far as is known."""
        costs = [self.queue.get_job(job_id).cost for job_id in self.requests]
        known = [cost.seconds / cost.attempts for cost in costs if cost and cost.attempts]
        return max(1.5, statistics.median(known)) if known else 1.5

    def _kill_web(self) -> bool:
        if self.web is None or self.web.poll() is not None:
            return False
        self.web.kill()
        self.web.wait()
        return True

    def _cancel(self) -> bool:
        active = self.active()
        if not active:
            return False
        job = self.chooser.choice(active)
        if self.queue.cancel(job.id).state != "cancelled":
            return False
        self.cancelled.add(job.id)
        self.cancel_seconds.append(wait_until(lambda: not self._process_of(job.id), f"end of {job.id}", 60))
        return True

    def _process_of(self, job_id: str) -> bool:
        found = False
        for process in job_processes(self.store.path):
            try:
                found |= job_id in process.cmdline()
            except psutil.NoSuchProcess:
                continue
        return found

    def _fill_disk(self) -> bool:
        ballast = self.disk / "ballast"
        self._count_hit()
        with open(ballast, "wb", buffering=0) as file:
            while True:
                try:
                    file.write(b"\0" * 4096)
                except OSError:
                    break
        time.sleep(FULL_SECONDS)
        self._count_hit()  # it may have been tried again, or be another one's turn
        ballast.unlink()
        return True

    def findings(self) -> list[str]:
        """What is not as it must be."""
        wrong = [f"process left: {process.cmdline()}" for process in all_processes(self.store.path)]
        wrong += [f"left in tmp: {path.name}" for path in (self.store.path / "tmp").iterdir()]
        wrong += [f"run left open: {run.id} {run.kind}" for run in self.store.list_runs(status="running")]
        wrong += [finding.message for finding in examine_store(self.store.path) if finding.level == "error"]
        for job_id, request in self.requests.items():
            wrong += [f"{job_id}: {text}" for text in self._findings_of(job_id, request)]
        return wrong

    def _findings_of(self, job_id: str, request: JobRequest) -> Iterator[str]:
        job = self.queue.get_job(job_id)
        expected = "cancelled" if job_id in self.cancelled else "done"
        if job.state == "failed" and self.hits[job_id] >= MAX_ATTEMPTS:
            self.given_up.append(f"{job_id}, hit {self.hits[job_id]} times: {job.error}")
        elif job.state != expected:
            yield f"is {job.state}, not {expected}, hit {self.hits[job_id]} times: {job.error} {_endings(self, job_id)}"
        elif job.state == "done" and isinstance(request, SlowRequest):
            run = self.store.get_run(job.run_id)
            if run.status != "done" or run.metrics["weights"] != expected_weights(request):
                yield f"run {run.id} is {run.status} with other weights than an undisturbed run"
            for artifact in self.store.list_artifacts(run.id):
                if path_sha256(self.store.path / artifact.path)[0] != artifact.sha256:
                    yield f"artifact {artifact.path} is not whole"
        runs = [run for run in self.store.list_runs(status="done") if run.config == request.model_dump(mode="json")]
        if isinstance(request, SlowRequest) and len(runs) > 1:
            yield f"{len(runs)} runs of one job"

    def close(self) -> None:
        """Stop what still runs."""
        self._kill_web()
        wait_until(lambda: not all_processes(self.store.path), "end of the worker")
        self.queue.close()
        self.store.close()


def _endings(drill: Drill, job_id: str) -> str:
    """How the attempts of a job ended."""
    path = drill.queue.folder(job_id).path / "cost.json"
    return path.read_text() if path.is_file() else "no attempt was recorded"


def run_rounds(
    disk: Path, num_rounds: int, num_jobs: int = 20, seed: int = 0, faults: tuple[str, ...] = FAULTS
) -> dict[str, object]:
    """Do the rounds and say what was found.

    Args:
        disk: a folder for the store; for the fault "disk full" a small file system of its own.
    """
    os.environ.update(ENVIRONMENT, HFI_ALLOW_EPHEMERAL="1")  # a disk in memory is meant here
    chooser = random.Random(seed)
    drill = Drill(disk, chooser, num_jobs)
    left = [faults[number % len(faults)] for number in range(num_rounds)]
    chooser.shuffle(left)
    try:
        while left:
            drill.ensure_worker()
            if not drill.active():
                drill.fill()
            wait_until(drill.is_at_work, "a job that runs")
            time.sleep(chooser.uniform(0.0, drill.seconds_of_a_job()))
            print(f"{num_rounds - len(left) + 1} of {num_rounds}: {left[-1]}", file=sys.stderr, flush=True)
            drill.strike(left.pop())

        def is_over() -> bool:
            drill.ensure_worker()
            return not drill.active()

        wait_until(is_over, "end of the jobs", 3600)
        drill._kill_web()
        wait_until(lambda: not all_processes(drill.store.path), "end of the worker")
        states = Counter(drill.queue.get_job(job_id).state for job_id in drill.requests)
        attempts = [drill.queue.get_job(job_id).cost for job_id in drill.requests]
        return {
            "rounds": num_rounds,
            "faults": dict(drill.done_faults),
            "jobs": dict(states),
            "attempts": sum(cost.attempts for cost in attempts if cost),
            "longest_cancel_seconds": round(max(drill.cancel_seconds, default=0.0), 2),
            "findings": drill.findings(),
            "given_up": drill.given_up,
        }
    except AssertionError:
        print(drill.situation(), file=sys.stderr, flush=True)
        raise
    finally:
        drill.close()


@contextmanager
def small_disk() -> Iterator[Path | None]:
    """A file system in memory of DISK_MIB, or None where mounting is not allowed."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", folder]
        if subprocess.run(words, capture_output=True).returncode != 0:
            yield None
            return
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.monotonic()
    with small_disk() as disk, tempfile.TemporaryDirectory() as folder:
        faults = FAULTS if disk else tuple(fault for fault in FAULTS if fault != "disk full")
        result = run_rounds(disk or Path(folder), arguments.rounds, arguments.jobs, arguments.seed, faults)
    print(json.dumps({**result, "seconds": round(time.monotonic() - start, 1)}))
    sys.exit(bool(result["findings"]))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
