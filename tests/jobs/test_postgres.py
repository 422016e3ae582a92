"""The same queue on a real PostgreSQL, started by the test; skipped where none is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hfi.jobs.queue import JobQueue
from hfi.jobs.start import start_worker, stop_worker
from storage import Store
from tests.jobs.slow_job import SlowRequest
from tests.jobs.waiting import wait_until


def _binaries() -> Path | None:
    found = shutil.which("pg_ctl")
    if found:
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)  # where Debian puts them


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a server that lives as long as this file's tests."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt install postgresql)")
    # The server refuses to run as root, and its user may not enter pytest's own folders.
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as folder:
        cluster, port = Path(folder) / "cluster", _free_port()
        if user:
            shutil.chown(folder, user)

        def call(name: str, *words: str) -> None:
            subprocess.run(
                [str(binaries / name), "-D", str(cluster), *words], user=user, cwd=folder, check=True,
                stdout=subprocess.DEVNULL, timeout=300,
            )  # fmt: skip

        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        call("initdb", "-U", "hfi", "--auth=trust", "--no-sync")
        call("pg_ctl", "-w", "-t", "300", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield f"postgresql://hfi@127.0.0.1:{port}/hfi_jobs"
        finally:
            call("pg_ctl", "-m", "immediate", "stop")


@pytest.mark.thorough
def test_jobs_on_postgres_end_and_are_cancelled(server: str, tmp_path: Path) -> None:
    """Two stores share the server; the worker of one never touches the jobs of the other."""
    with Store.open(tmp_path / "one") as store, Store.open(tmp_path / "two") as other:
        queue, theirs = JobQueue(store, server), JobQueue(other, server)
        waiting = theirs.submit(SlowRequest(name="theirs")).job
        long = queue.submit(SlowRequest(num_steps=6000, checkpoint_every_n_steps=1), queue="gpu", priority=1).job
        short = queue.submit(SlowRequest(name="short"), queue="gpu", priority=2, user="ada").job
        assert [job.id for job in queue.list_jobs()] == [short.id, long.id]
        assert not (store.path / "queue.db").exists()
        worker = start_worker(store.path, "gpu", "cpu", server)
        try:
            wait_until(lambda: (found := queue.get_job(long.id).progress) and found.step > 3, "steps")
            assert queue.cancel(long.id).state == "cancelled"
            wait_until(lambda: queue.get_job(short.id).finished_at, "end of the short job")
        finally:
            stop_worker(worker)
        done = queue.get_job(short.id)
        assert (done.state, done.summary, done.user) == ("done", "Hashed.", "ada")
        assert [run.status for run in store.list_runs()] == ["cancelled", "done"]
        assert theirs.get_job(waiting.id).state == "waiting"
        queue.close()
        theirs.close()
