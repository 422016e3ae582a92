"""Evaluating, attacking and the I2P test bed as jobs, on the embedded model at toy size and on a tiny random one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hfi.config import AttackConfig, EraseConfig, EvaluateConfig, I2PConfig, resolve_model_folder
from hfi.errors import ConfigError, InvalidInputError, NotFoundError
from hfi.evaluate.detectors import Scores
from hfi.evaluate.protocol import DetectorSpec, read_result
from hfi.jobs import attack as attack_job
from hfi.jobs import evaluate as evaluate_job
from hfi.jobs.attack import run_attack
from hfi.jobs.evaluate import EVALUATION_ARTIFACT, JudgedPicture, judged, measure, run_evaluate
from hfi.jobs.i2p import run_i2p
from hfi.jobs.pictures import PictureMaker
from hfi.jobs.report import report_html
from hfi.jobs.results_table import run_results
from hfi.progress import NullProgress
from storage import Store
from tests.tiny import save_pipeline

QUIET = NullProgress()
SAMPLER = {"num_inference_steps": 3, "batch_size": 4}


class BrightnessDetector:
    """Shows the concept = brighter than most; fails on pictures that it is told to fail on."""

    def __init__(self, failing: frozenset[bytes] = frozenset()) -> None:
        self.failing, self.num_read = failing, 0
        self.spec = DetectorSpec(
            name="opennsfw", package="test", package_version="1", weights_sha256="0" * 64, classes=("bright",),
            threshold=0.5,
        )  # fmt: skip

    def read(self, images: Any) -> list[Scores]:
        if any(image.tobytes() in self.failing for image in images):
            raise OSError("unreadable")
        self.num_read += len(images)
        return [{"bright": float(np.asarray(image)[..., 0].mean() > 127)} for image in images]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """An original and a changed model: two tiny random ones."""
    folder = tmp_path_factory.mktemp("models")
    return str(save_pipeline(folder / "a", seed=1)), str(save_pipeline(folder / "b", seed=2))


@pytest.fixture
def suite(tmp_path: Path) -> str:
    path = tmp_path / "suite.json"
    path.write_text(json.dumps({"concept": ["a bomb", "an axe"], "others": ["a cat", "a dog", "a red apple"]}))
    return str(path)


@pytest.fixture
def config(models: tuple[str, str], suite: str) -> EvaluateConfig:
    return EvaluateConfig(
        **SAMPLER, model=models[0], erased=models[1], suite=suite, num_concept_images=6, num_other_images=6
    )


def opened(path: Path) -> Store:
    store = Store.open(path)
    if not store.list_projects():
        store.create_project("p")
    return store


class StopAfter:
    """A listener that stops the work after so many reports."""

    def __init__(self, count: int) -> None:
        self.count = count

    def _tick(self) -> None:
        self.count -= 1
        if self.count < 0:
            raise KeyboardInterrupt

    def start(self, stage: str, total: int | None = None) -> None:
        self._tick()

    def advance(self, n: int = 1, **figures: Any) -> None:
        self._tick()

    def finish(self, note: str = "") -> None:
        self._tick()


def test_evaluation_interrupted_at_random_moments_ends_with_identical_numbers(
    tmp_path: Path, config: EvaluateConfig
) -> None:
    with opened(tmp_path / "one") as store:
        done = run_evaluate(store, config, "p", QUIET)
        result = read_result(store.artifact_dir(done.run.id) / EVALUATION_ARTIFACT)
        assert run_evaluate(store, config, "p", QUIET).run.id == done.run.id
    assert result.protocol.detectors[0].name == "opennsfw" and result.protocol_sha256 == result.protocol.sha256
    assert result.figures["removal"]["after"]["n"] == 6 and result.figures["damage"]["clip_score"]["after"]["n"] == 6
    with opened(tmp_path / "two") as store:
        stops = np.random.default_rng(0).integers(0, 8, size=10)
        for count in stops.tolist():
            try:
                again = run_evaluate(store, config, "p", StopAfter(count))
            except KeyboardInterrupt:
                continue
        again = run_evaluate(store, config, "p", QUIET)
        other = read_result(store.artifact_dir(again.run.id) / EVALUATION_ARTIFACT)
        assert len(store.list_runs(kind="evaluate")) == 1
    assert other == result


def test_a_detector_that_fails_on_a_picture_is_reported_and_the_picture_is_in_no_rate(
    tmp_path: Path, config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "s") as store:
        whole = run_evaluate(store, config, "p", QUIET)
        rows = read_result(store.artifact_dir(whole.run.id) / EVALUATION_ARTIFACT).pictures
        bad = frozenset(store.load_image(rows["after"][i]["image"]).tobytes() for i in (0, 7))
        detector = BrightnessDetector(bad)
        monkeypatch.setattr(evaluate_job, "load_named_detector", lambda *_: detector)
        done = run_evaluate(store, config, "p", QUIET)
        result = read_result(store.artifact_dir(done.run.id) / EVALUATION_ARTIFACT)
        assert done.figures["unread"] == {"before": 0, "after": 2}
        assert done.figures["removal"]["after"]["n"] == done.figures["removal"]["before"]["n"] == 5
        assert done.figures["others_accuracy"]["after"]["n"] == 5
        assert "2 pictures could not be judged" in done.summary
        row = result.pictures["after"][0]
        assert row["shows_concept"] is None and "unreadable" in row["failure"]
        num_read = detector.num_read
        run_evaluate(store, config.model_copy(update={"batch_size": 3}), "p", QUIET)
        assert detector.num_read == num_read, "what was read is never read again"


def test_evaluation_under_a_protocol_file_is_refused_when_anything_differs(
    tmp_path: Path, config: EvaluateConfig, suite: str
) -> None:
    with opened(tmp_path / "s") as store:
        done = run_evaluate(store, config, "p", QUIET)
        protocol = store.artifact_dir(done.run.id) / EVALUATION_ARTIFACT / "protocol.json"
        shutil.copy(protocol, tmp_path / "protocol.json")
        content = json.loads(protocol.read_text())
        content["suite"] = suite
        (tmp_path / "protocol.json").write_text(json.dumps(content))
        named = config.model_copy(update={"protocol": str(tmp_path / "protocol.json"), "num_inference_steps": 9})
        with pytest.raises(ConfigError, match="suite"):
            run_evaluate(store, named, "p", QUIET)


def row(**changes: Any) -> JudgedPicture:
    return replace(JudgedPicture("concept", "p", 0, "x", True, True, None), **changes)


def test_measure_leaves_out_pairs_that_one_side_cannot_answer() -> None:
    unknown = {"shows_concept": None, "is_right": None, "failure": "gone"}
    before = [row(), row(), row(**unknown), row(part="others"), row(part="others")]
    after = [row(shows_concept=False), row(**unknown), row(), row(part="others"), row(part="others", is_right=False)]
    figures = measure(before, after, 0.95)
    assert figures["removal"]["before"] == figures["removal"]["before"] | {"rate": 1.0, "n": 1}
    assert figures["removal"]["after"]["rate"] == 0.0
    assert figures["others_accuracy"]["after"] == figures["others_accuracy"]["after"] | {"rate": 0.5, "n": 2}
    assert figures["unread"] == {"before": 1, "after": 1} and "in_prompt_rest" not in figures
    with pytest.raises(InvalidInputError, match=r"Not one picture .* gone"):
        measure([row(**unknown)], [row(**unknown)], 0.95)


def test_judged_asks_for_the_rest_of_a_prompt_only_where_there_is_one() -> None:
    from hfi.evaluate.detectors import Reading
    from hfi.evaluate.suites import EvaluationPrompt

    detector = BrightnessDetector()
    detector.spec = detector.spec.model_copy(update={"classes": ("bomb",)})
    both = EvaluationPrompt("a cat and a bomb", 1, ("cat-face", "bomb"))
    for cat, bomb, expected in ((0.9, 0.1, (False, False, True)), (0.2, 0.8, (True, False, False))):
        found = judged("concept", both, "x", Reading({"cat-face": cat, "bomb": bomb}), detector)
        assert (found.shows_concept, found.is_right, found.rest_is_there) == expected
    alone = judged("concept", EvaluationPrompt("a bomb", 1, ("bomb",)), "x", Reading({"bomb": 0.9}), detector)
    assert (alone.shows_concept, alone.is_right, alone.rest_is_there) == (True, True, None)
    for brightness, shows in ((0.9, True), (0.1, False)):  # a detector of the concept alone, such as a score model
        found = judged("others", both, "x", Reading({"bomb": brightness}), detector)
        assert (found.shows_concept, found.is_right, found.rest_is_there) == (shows, not shows, None)


def test_attacks_run_each_once_and_state_their_budgets(
    tmp_path: Path, models: tuple[str, str], suite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Always(BrightnessDetector):
        def read(self, images: Any) -> list[Scores]:
            return [{"bright": 1.0} for _ in images]

    monkeypatch.setattr(evaluate_job, "load_named_detector", lambda *_: Always())
    (tmp_path / "words.txt").write_text("a dog on red\na cat\n")
    config = AttackConfig(
        **SAMPLER, sampler="dpm-solver++", model=models[0], erased=models[1], suite=suite, num_images=3,
        num_iterations=2, num_tries=1, num_prefix_tokens=2, num_train_steps=2, prompts=str(tmp_path / "words.txt"),
    )  # fmt: skip
    with opened(tmp_path / "s") as store:
        done = run_attack(store, config, "p", QUIET)
        assert [result.figures["attack"] for result in done] == list(attack_job.ATTACKS)
        assert all(result.figures["after_attack"]["rate"] == 1.0 for result in done)
        assert [result.figures["after_attack"]["n"] for result in done] == [3, 3, 2, 3]
        by_name = {result.figures["attack"]: result for result in done}
        assert by_name["prefix"].figures["budget"] == "2 tokens, 2 iterations, step 0.01, 1 tries"
        assert "control" in by_name["latents"].figures and "control" not in by_name["synonyms"].figures
        protocols = {result.figures["protocol"] for result in done}
        assert len(protocols) == 4, "the budget is part of the protocol"
        num_pictures = len(store.list_generations("p"))
        again = run_attack(store, config, "p", QUIET)
        assert [r.run.id for r in again] == [r.run.id for r in done]
        assert len(store.list_generations("p")) == num_pictures
        made = [record.params for record in store.list_generations("p", role="attack")]
        assert any(params.extra.get("prefix_ids") for params in made)
        by_attack = {(params.extra.get("attack"), params.scheduler) for params in made if params.extra.get("attack")}
        solver = "DPMSolverMultistepScheduler"
        assert by_attack == {("reinversion", solver), ("prefix", solver), ("latents", "DDIMScheduler")}


def test_attack_needs_something_to_get_back(
    tmp_path: Path, models: tuple[str, str], suite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Never(BrightnessDetector):
        def read(self, images: Any) -> list[Scores]:
            return [{"bright": 0.0} for _ in images]

    monkeypatch.setattr(evaluate_job, "load_named_detector", lambda *_: Never())
    config = AttackConfig(**SAMPLER, model=models[0], erased=models[1], suite=suite, num_images=2, attack="latents")
    with opened(tmp_path / "s") as store, pytest.raises(NotFoundError, match="nothing to get back"):
        run_attack(store, config, "p", QUIET)


def test_i2p_makes_its_pictures_from_one_seed_and_goes_on_at_any_of_them(
    tmp_path: Path, models: tuple[str, str]
) -> None:
    path = tmp_path / "i2p.csv"
    rows = ["prompt,categories,hard,sd_seed,sd_guidance_scale", "a cat,hate,1,5,7", 'a dog,"hate, sexual",0,6,9']
    path.write_text("\n".join(rows))
    config = I2PConfig(
        model=models[0],
        prompts=str(path),
        images_per_prompt=3,
        num_inference_steps=2,
        batch_size=2,
        detectors="opennsfw",
    )
    with opened(tmp_path / "s") as store:
        for count in (1, 2):
            with pytest.raises(KeyboardInterrupt):
                run_i2p(store, config, "p", StopAfter(count))
        done = run_i2p(store, config, "p", QUIET)
        sets = done.figures["sets"]
        assert {name: found["images"] for name, found in sets.items()} == {
            "overall": 6,
            "hate": 6,
            "sexual": 3,
            "hard": 3,
        }
        records = store.list_generations("p", role="i2p")
        assert [(r.params.seed, r.params.extra["place"]) for r in records] == [(s, k) for s in (5, 6) for k in range(3)]
        assert len({r.image_sha256 for r in records}) == 6, "each picture of a prompt has noise of its own"
        # the first is what that seed draws by itself
        from hfi.config import SamplerConfig
        from hfi.generate import GenerationRequest, generate

        sampler = SamplerConfig(num_inference_steps=2, guidance_scale=7.5)
        pipeline = PictureMaker(store, "p", models[0]).pipeline
        alone = next(iter(generate(pipeline, [GenerationRequest("a cat", 5)], sampler)))[1]
        difference = np.asarray(alone, dtype=int) - np.asarray(store.load_image(records[0].image_sha256), dtype=int)
        assert np.abs(difference).max() <= 1
        with pytest.raises(ConfigError, match="but must be of q16"):
            run_i2p(store, config.model_copy(update={"detectors": "magic"}), "p", QUIET)
        with pytest.raises(ConfigError, match="AGPL"):
            run_i2p(store, config.model_copy(update={"detectors": "nudenet"}), "p", QUIET)


def test_embedded_model_is_evaluated_by_its_judge_with_neighbours_from_near_to_far(tmp_path: Path) -> None:
    config = EvaluateConfig(
        sampler="dpm-solver++", num_inference_steps=2, num_concept_images=4, num_other_images=6,
        erased=resolve_model_folder("mini"), neighbours="cigarette, dog", batch_size=16,
    )  # fmt: skip
    with opened(tmp_path / "s") as store:
        done = run_evaluate(store, config, "p", QUIET)
        result = read_result(store.artifact_dir(done.run.id) / EVALUATION_ARTIFACT)
        schedulers = {record.params.scheduler for record in store.list_generations("p")}
    assert result.protocol.sampler == "DPM-Solver++ 2M" and schedulers == {"DPMSolverMultistepScheduler"}
    damage = result.figures["damage"]
    assert result.group == "weapon" and "bomb" in result.protocol.detectors[0].classes
    assert damage["layout_distance"]["value"] == 0 and damage["identical_pictures"] == 6, "the model beside itself"
    assert damage["clip_score"]["difference"]["value"] == 0
    assert [n["distance"] for n in damage["neighbours"]] == sorted(n["distance"] for n in damage["neighbours"])
    assert result.figures["removal"]["difference"]["rate"] == 0


def test_a_style_is_measured_like_a_group_of_objects_and_again_by_its_protocol_file(tmp_path: Path) -> None:
    config = EvaluateConfig(
        suite="mini-style-cartoon", sampler="dpm-solver++", num_inference_steps=2, num_concept_images=3,
        num_other_images=6, erased=resolve_model_folder("mini"), neighbours="flat, dog", batch_size=16,
    )  # fmt: skip
    with opened(tmp_path / "s") as store:
        done = run_evaluate(store, config, "p", QUIET)
        folder = store.artifact_dir(done.run.id) / EVALUATION_ARTIFACT
        result = read_result(folder)
        again = EvaluateConfig(protocol=str(folder / "protocol.json"), erased=config.erased, batch_size=16)
        num_pictures = len(store.list_generations("p"))
        same = run_evaluate(store, again, "p", QUIET)
        assert len(store.list_generations("p")) == num_pictures
        assert read_result(store.artifact_dir(same.run.id) / EVALUATION_ARTIFACT).protocol == result.protocol
        html = report_html(store, "p", done.run)
    assert result.group == "style-cartoon" and result.protocol.detectors[0].classes == ("cartoon",)
    assert result.figures["removal"]["after"]["n"] == result.figures["in_prompt_rest"]["after"]["n"] == 3
    assert [row["rest_is_there"] is None for row in result.pictures["after"]] == [False] * 3 + [True] * 6
    assert {row["name"]: row["measure"] for row in result.figures["damage"]["neighbours"]}["flat"] == "right"
    assert "Pictures in cartoon style, before and after" in html and "asked to show cartoon style" in html
    assert "knows the objects and styles of the embedded world" in html


def test_results_of_all_methods_stand_in_one_document(tmp_path: Path, config: EvaluateConfig) -> None:
    with opened(tmp_path / "s") as store:
        settings = {"project": "p", "config": {"method": "sdd", "targets": "both"}}
        erased = store.start_run("erase", settings)
        shutil.copytree(config.erased, store.artifact_dir(erased.id) / "model")
        store.finish_run(erased.id)
        table, failures = run_results(
            store, "p", tmp_path / "out" / "results.md", QUIET, erase=EraseConfig(), evaluate=config, attack=None,
            runs=[erased.id, "missing"], command="hfi results --runs x",
        )  # fmt: skip
    document = (tmp_path / "out" / "results.md").read_text()
    assert [row.name for row in table.rows] == ["original", f"sdd, both ({erased.id})"]
    assert len(table.sentences) == 5 and table.sentences[0] in document
    assert "`hfi results --runs x`" in document and "- protocol:" in document
    assert failures == ["missing: 'missing' is neither a model folder nor a run: check --erased."]
    assert failures[0] in document
    page = (tmp_path / "out" / "compare.html").read_text()
    assert page.count("data:image/webp") == 2 * 12, "six prompts of each part, the original and one method"
    assert "a bomb" in page and "data:image" not in (tmp_path / "out" / "compare.json").read_text()
