"""Pictures of an erasure while it runs: the same prompts and seeds, at the right steps, and nothing else is changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hfi.config import EraseConfig, GenerateConfig, ScoreConfig
from hfi.job_requests import EraseRequest
from hfi.jobs import stages
from hfi.jobs.erase_samples import SamplePrompt, SampleWish, choose_prompts, picture_path, read_samples, samples_folder
from hfi.jobs.job_kinds import run_erase_job
from hfi.progress import NullProgress
from storage import Store
from storage.records import JudgmentInput
from tests import tiny

QUIET = NullProgress()


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    """A store with eight judged pictures of a tiny model and a score model; and the model's folder."""
    folder = tmp_path_factory.mktemp("samples")
    model = str(tiny.save_pipeline(folder / "model"))
    with Store.open(folder / "store") as store:
        sampler = GenerateConfig(model=model, num_inference_steps=1)
        stages.run_generate(store, sampler, ["a cat", "a dog"], range(4), "p", QUIET)
        store.add_annotator("ann")
        for lease in store.claim("p", "ann", 50):
            answer = "yes" if "cat" in lease.prompt else "no"
            store.submit_judgments(
                [JudgmentInput(f"{lease.id:08d}-0000-4000-8000-0000000000a0", "ann", answer, lease.id)]
            )
        stages.run_score(store, ScoreConfig(max_epochs=2, clip=f"{model}/clip"), "p", QUIET)
        yield store, model


class Listener(NullProgress):
    """Keeps the figures it is told, and can stop the work at a step."""

    def __init__(self, stop_at: int = -1) -> None:
        self.figures: list[dict[str, float]] = []
        self.step, self.stop_at = 0, stop_at

    def start(self, stage: str, total: int | None = None) -> None:
        self.step = 0

    def advance(self, n: int = 1, **figures: float) -> None:
        self.step += n
        self.figures += [figures] if figures else []
        if self.step == self.stop_at:
            raise KeyboardInterrupt


def request(model: str, **settings: Any) -> EraseRequest:
    names = {"with_samples", "sample_every_n_steps", "sample_prompts"} & settings.keys()
    wish = {name: settings.pop(name) for name in names}
    config = {"model": model, "targets": "prompts", "batch_size": 1, "bank_batches": 1, "num_train_steps": 4} | settings
    return EraseRequest(project="p", config=EraseConfig.model_validate(config), **wish)


def weights_of(store: Store, run_id: str) -> bytes:
    return next((store.artifact_dir(run_id) / "model" / "unet").glob("*.safetensors")).read_bytes()


def test_samples_are_drawn_at_their_steps_and_change_no_weight(judged: tuple[Store, str]) -> None:
    store, model = judged
    plain = run_erase_job(store, request(model), QUIET)
    other = request(model, device="cpu", with_samples=True, sample_every_n_steps=2)  # another run, equal otherwise
    listener = Listener()
    watched = run_erase_job(store, other, listener)
    assert watched.run.id != plain.run.id
    assert weights_of(store, watched.run.id) == weights_of(store, plain.run.id)
    assert read_samples(samples_folder(store, plain.run.id)) is None
    folder = samples_folder(store, watched.run.id)
    sheet = read_samples(folder)
    assert sheet is not None and [point.step for point in sheet.points] == [0, 2, 4]
    assert sheet.prompts == (SamplePrompt("a cat", 0), SamplePrompt("a dog", 0, is_concept=False))
    assert all(0 <= score <= 1 for point in sheet.points for score in point.concept_scores)
    assert sheet.mean_score(sheet.points[0]) == sheet.points[0].concept_scores[0]
    for point in sheet.points:
        with Image.open(picture_path(folder, point.step, 1)) as picture:
            assert picture.size == (16, 16) or max(picture.size) <= 256
    assert any("concept_score" in figures for figures in listener.figures)
    assert "samples" in {artifact.name for artifact in store.list_artifacts(watched.run.id)}


def test_an_interrupted_erasure_goes_on_with_its_samples(judged: tuple[Store, str]) -> None:
    store, model = judged
    asked = request(model, seed=5, checkpoint_every_n_steps=1, with_samples=True, sample_every_n_steps=1)
    with pytest.raises(KeyboardInterrupt):
        run_erase_job(store, asked, Listener(stop_at=3))
    run = store.list_runs(kind="erase", status="running")[-1]
    sheet = read_samples(samples_folder(store, run.id))
    assert sheet is not None and [point.step for point in sheet.points] == [0, 1, 2]
    done = run_erase_job(store, asked, QUIET)
    sheet = read_samples(samples_folder(store, run.id))
    assert done.run.id == run.id and sheet is not None
    # the step at which it was stopped was kept before its pictures were drawn
    assert [point.step for point in sheet.points] == [0, 1, 2, 4]


def test_an_erasure_that_was_done_without_samples_gets_them_before_and_after(judged: tuple[Store, str]) -> None:
    store, model = judged
    first = run_erase_job(store, request(model, method="closed_form"), QUIET)
    asked = request(model, method="closed_form", with_samples=True, sample_prompts=("a red cat", "a dog"))
    again = run_erase_job(store, asked, QUIET)
    sheet = read_samples(samples_folder(store, again.run.id))
    assert again.run.id == first.run.id and sheet is not None
    assert [row.prompt for row in sheet.prompts] == ["a red cat", "a dog"]
    assert [point.step for point in sheet.points] == [0, first.figures["steps"]]


def test_prompts_are_those_of_the_most_flagged_pictures_and_some_others() -> None:
    chosen = choose_prompts(SampleWish(), ["a", "a", "b", "", "c", "d", "e"], ["a", "x", "y", "z"])
    assert [(row.prompt, row.is_concept) for row in chosen] == [
        ("a", True), ("b", True), ("c", True), ("d", True), ("x", False), ("y", False),
    ]  # fmt: skip
    assert len(choose_prompts(SampleWish(prompts=("p",) * 40), [], [])) == 16


def test_nothing_was_drawn_yet(tmp_path: Path) -> None:
    assert read_samples(tmp_path) is None
