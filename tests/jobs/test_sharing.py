"""A job that makes pictures, on one process and on two: the same pictures, one run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hfi.config import GenerateConfig
from hfi.job_requests import GenerateRequest
from hfi.jobs import sharing
from hfi.jobs.queue import JobQueue
from storage import Store
from tests.jobs.waiting import wait_until
from tests.tiny import save_pipeline


def test_shares_are_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for number in range(3):
        monkeypatch.setenv("RANK", str(number))
        shares.append(sharing.share_of(range(7)))
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]


def made_on(store_path: Path, devices: str, request: GenerateRequest) -> dict[tuple[str, int], str]:
    """Prompt and seed -> hash of the picture, made by a job on these devices."""
    with Store.open(store_path) as store:
        queue = JobQueue(store)
        job = queue.submit(request).job
        words = [sys.executable, "-m", "hfi.cli", "work", "--store", str(store_path), "--devices", devices]
        worker = subprocess.Popen([*words, "--until-empty"])
        try:
            wait_until(lambda: queue.get_job(job.id).finished_at, f"pictures on {devices}")
        finally:
            worker.terminate()
            worker.wait()
        done = queue.get_job(job.id)
        assert (done.state, done.error) == ("done", "")
        assert len(store.list_runs()) == 1 and len(store.list_items("p")) == 4
        queue.close()
        records = store.list_generations("p")
        return {(record.params.prompt, record.params.seed): record.image_sha256 for record in records}


def test_two_processes_make_the_same_pictures_as_one(tmp_path: Path) -> None:
    model = save_pipeline(tmp_path / "model")
    config = GenerateConfig(model=str(model), num_inference_steps=2, batch_size=2, device="cpu")
    request = GenerateRequest(project="p", config=config, prompts=("a cat", "a dog"), seeds=(1, 2))
    one, two = (made_on(tmp_path / devices, devices, request) for devices in ("cpu", "cpu,cpu"))
    assert one == two and len(set(one.values())) == 4
