"""Stages on one process and on two: the same pictures, the same weights, one run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hfi import parallel
from hfi.config import GenerateConfig
from hfi.errors import InvalidInputError
from hfi.job_requests import GenerateRequest
from hfi.jobs import sharing
from hfi.jobs.queue import JobQueue
from hfi.progress import NullProgress
from storage import Store
from tests.jobs import stages_together
from tests.jobs.waiting import ENVIRONMENT, wait_until
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


@pytest.mark.thorough
def test_two_processes_make_the_same_pictures_as_one(tmp_path: Path) -> None:
    model = save_pipeline(tmp_path / "model")
    config = GenerateConfig(model=str(model), num_inference_steps=2, batch_size=2, device="cpu")
    request = GenerateRequest(project="p", config=config, prompts=("a cat", "a dog"), seeds=(1, 2))
    one, two = (made_on(tmp_path / devices, devices, request) for devices in ("cpu", "cpu,cpu"))
    assert one == two and len(set(one.values())) == 4


# The processes add gradients of halves of a batch; the order of such a sum is what may differ.
TOLERANCE = 1e-4


def results_of(
    store_path: Path, model: str, methods: list[str]
) -> tuple[dict[str, dict[str, torch.Tensor]], list[str], dict[str, Any]]:
    """Weights of every artifact by run, hashes of the original model's pictures, and the evaluation's figures."""
    weights: dict[str, dict[str, torch.Tensor]] = {}
    with Store.open(store_path) as store:
        runs = store.list_runs(status="done")
        assert [run.kind for run in runs] == ["score", "invert", *["erase"] * len(methods), "evaluate"]
        for run in runs:
            for file in sorted(store.artifact_dir(run.id).rglob("*.safetensors")):
                name = f"{run.kind} {run.config['config'].get('method', '')} {file.name} {file.parent.name}"
                weights[name] = load_file(file)
        pictures = [record.image_sha256 for record in store.list_generations("p", role="evaluation", model_id=model)]
        return weights, sorted(pictures), runs[-1].metrics["removal"]


class LossListener(NullProgress):
    """Remembers which stages told a loss."""

    def __init__(self) -> None:
        self.stage, self.stages = "", set[str]()

    def start(self, stage: str, total: int | None = None) -> None:
        self.stage = stage

    def advance(self, n: int = 1, **figures: float) -> None:
        if "loss" in figures:
            self.stages.add(self.stage)


@pytest.mark.parametrize(
    "methods",
    [
        pytest.param("sdd", marks=pytest.mark.thorough),
        pytest.param("esd,abo,robust,closed_form", marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_to_the_same_weights_as_one(tmp_path: Path, methods: str) -> None:
    """Inversion and erasers at the same global batch; an evaluation whose pictures are shared out."""
    model = str(save_pipeline(tmp_path / "model"))
    store_path = stages_together.prepare(tmp_path / "one")
    heard = LossListener()
    stages_together.score(store_path, model, heard)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    words = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "tests.jobs.stages_together"]
    environment = os.environ | ENVIRONMENT | {"OMP_NUM_THREADS": "1"}
    launch = subprocess.Popen(
        [sys.executable, "-m", *words, str(tmp_path / "two" / "store"), model, methods],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    stages_together.run_stages(store_path, model, methods.split(","), heard)
    output, _ = launch.communicate(timeout=600)
    assert launch.returncode == 0, output
    (one, pictures, removal), (two, *rest) = (
        results_of(tmp_path / name / "store", model, methods.split(",")) for name in ("one", "two")
    )
    assert one.keys() == two.keys() and len(one) > 4 and len(pictures) == 8
    for name in one:
        for key, tensor in one[name].items():
            assert torch.allclose(tensor, two[name][key], atol=TOLERANCE, rtol=0), f"{name}: {key}"
    assert rest == [pictures, removal]
    assert {"score: train", "invert", "erase: both"} <= heard.stages, "stages that tell their losses"


def test_a_batch_that_does_not_come_out_even_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "num_parts", lambda: 2)
    with pytest.raises(InvalidInputError, match="multiple of 2, or fewer processes"):
        parallel.own_part(torch.zeros(3))
