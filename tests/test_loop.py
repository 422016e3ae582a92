"""The whole loop at toy size on the embedded model: generate, judge, score, invert, erase, evaluate, report."""

import json

import pytest

from hfi.config import EraseConfig, EvaluateConfig, GenerateConfig, InvertConfig, ScoreConfig, SimulateConfig
from hfi.errors import HFIError, NoFlaggedImagesError, NotFoundError, OneSidedLabelsError
from hfi.evaluate.results import read_results
from hfi.jobs import invert as invert_job
from hfi.jobs import stages
from hfi.jobs.demo import PROJECT, run_demo
from hfi.jobs.generate import ensure_project
from hfi.progress import NullProgress
from hfi.recipes import toy_recipe
from storage import Store
from storage.records import ItemInput, JudgmentInput
from tests.tiny import save_pipeline

QUIET = NullProgress()


@pytest.fixture(scope="module", autouse=True)
def small_previews():
    """Two quick pictures of a token instead of six: half of the time of a toy demo went into them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(invert_job, "PREVIEW_STEPS", 2)
        patch.setattr(invert_job, "PREVIEWS_PER_TOKEN", 2)
        yield


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One run of the toy demo: its folder and result."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, run_demo(folder, QUIET, toy_recipe("mini"))


def numbers(folder):
    """Results without what a clock or a memory gauge says."""
    results = json.loads((folder / "results.json").read_text())
    return {key: value for key, value in results.items() if key not in ("seconds", "peak_memory_mib")}


def test_demo_writes_report_and_results(demo):
    folder, result = demo
    results = read_results(folder / "results.json")
    assert results.images == 16 and results.annotators == 3 and results.judgments >= 48
    assert results.removal.before.n == 4 and results.others_accuracy.after.n == 4
    page = (folder / "report.html").read_text()
    assert (folder / "before_after.png").stat().st_size > 1000
    assert "simulated" in page.lower() and "data:image" in page
    assert "report.html" in result.summary


def test_everything_downstream_names_the_snapshot(demo):
    folder, _ = demo
    with Store.open(folder / "store") as store:
        runs = {run.kind: run for run in store.list_runs(status="done")}
        hashes = {runs[kind].snapshot_hash for kind in ("score", "invert", "erase", "evaluate")}
        assert len(hashes) == 1 and len(hashes.pop()) == 64
        assert all(user.is_simulated for user in store.list_users())


def test_every_picture_can_be_made_again_from_its_provenance(demo):
    from hfi.generate import GenerationRequest, generate
    from hfi.pipelines import load_pipeline

    folder, _ = demo
    with Store.open(folder / "store") as store:
        record = store.list_generations(PROJECT)[0]
        kept = store.load_image(record.image_sha256)
    p = record.params
    config = GenerateConfig(num_inference_steps=p.num_inference_steps, guidance_scale=p.guidance_scale)
    again = next(iter(generate(load_pipeline(p.model_id), [GenerationRequest(p.prompt, p.seed)], config)))[1]
    difference = max(abs(a - b) for a, b in zip(kept.tobytes(), again.tobytes(), strict=True))
    assert difference <= 1, "alone instead of in a batch: the same up to rounding"


def test_demo_run_again_does_nothing_new_and_says_the_same(demo):
    folder, _ = demo
    before = numbers(folder)
    with Store.open(folder / "store") as store:
        num_runs = len(store.list_runs(status="done"))
    run_demo(folder, QUIET, toy_recipe("mini"))
    with Store.open(folder / "store") as store:
        assert len(store.list_runs(status="done")) == num_runs
    assert numbers(folder) == before


class StopAt:
    """A listener that stops the work when a stage of that name has advanced."""

    def __init__(self, stage):
        self.stage, self.current = stage, ""

    def start(self, stage, total=None):
        self.current = stage

    def advance(self, n=1, **figures):
        if self.current.startswith(self.stage):
            raise KeyboardInterrupt

    def finish(self, note=""):
        pass


def test_demo_interrupted_in_every_stage_ends_with_the_same_numbers(demo, tmp_path):
    for stage in ("generate", "judge", "erase: both", "evaluate: after"):
        with pytest.raises(KeyboardInterrupt):
            run_demo(tmp_path, StopAt(stage), toy_recipe("mini"))
        assert not (tmp_path / "results.json").exists()
    run_demo(tmp_path, QUIET, toy_recipe("mini"))
    assert numbers(tmp_path) == numbers(demo[0])


def test_stages_work_on_any_stable_diffusion_folder(tmp_path):
    """A tiny random model of the real classes, judged by hand, measured by its own score model and a suite file."""
    model = save_pipeline(tmp_path / "model")
    suite = tmp_path / "suite.json"
    suite.write_text(json.dumps({"concept": ["a cat"], "others": ["a dog"]}))
    sampler = {"num_inference_steps": 2, "model": str(model)}
    with Store.open(tmp_path / "store") as store:
        stages.run_generate(store, GenerateConfig(**sampler), ["a cat", "a dog"], range(6), "p", QUIET)
        judge_by_prompt(store, "p", "cat")
        scored = stages.run_score(store, ScoreConfig(max_epochs=3), "p", QUIET)
        assert scored.figures["flagged"] == 6
        invert = InvertConfig(model=str(model), num_train_steps=2, num_concepts=1, batch_size=2, stopping="steps")
        assert stages.run_invert(store, invert, "p", QUIET).figures["vectors"] == 1
        erase = EraseConfig(model=str(model), num_train_steps=2, batch_size=2, allow_weak_tokens=True)
        stages.run_erase(store, erase, "p", QUIET)
        config = EvaluateConfig(**sampler, suite=str(suite), num_concept_images=2, num_other_images=2)
        figures = stages.run_evaluate(store, config, "p", QUIET).figures
        assert figures["removal"]["after"]["n"] == 2
        stages.run_report(store, tmp_path / "out", "p", QUIET)
    assert "data:image" in (tmp_path / "out" / "report.html").read_text()


def judge_by_prompt(store, project, word):
    """One annotator flags every picture whose prompt has the word."""
    store.add_annotator("ann")
    while leases := store.claim(project, "ann", 50):
        store.submit_judgments([answer_to(lease, "yes" if word in lease.prompt else "no") for lease in leases])


def answer_to(lease, answer):
    """One annotator's answer with an id of its own."""
    return JudgmentInput(f"{lease.id:08d}-0000-4000-8000-000000000000", "ann", answer, lease.id)


def add_judged_square(store, project, answers):
    """One grey picture per answer, judged by one annotator."""
    from PIL import Image

    ensure_project(store, project)
    shas = [store.add_image(Image.new("RGB", (64, 64), (i, i, i))).sha256 for i in range(len(answers))]
    store.add_items(project, [ItemInput((sha,), f"prompt {i}") for i, sha in enumerate(shas)])
    store.add_annotator("ann")
    while leases := store.claim(project, "ann", 50):
        store.submit_judgments([answer_to(lease, answers[shas.index(lease.images[0])]) for lease in leases])


def test_zero_flagged_images_is_one_clear_sentence(tmp_path):
    with Store.open(tmp_path) as store:
        add_judged_square(store, "p", ["no"] * 6)
        with pytest.raises(NoFlaggedImagesError, match="None of the 6 judged pictures"):
            stages.run_score(store, ScoreConfig(), "p", QUIET)
        assert store.list_runs() == []


def test_all_flagged_images_is_one_clear_sentence(tmp_path):
    with Store.open(tmp_path) as store:
        add_judged_square(store, "p", ["yes"] * 6)
        with pytest.raises(OneSidedLabelsError):
            stages.run_score(store, ScoreConfig(), "p", QUIET)


@pytest.mark.parametrize(
    "call",
    [
        lambda store: stages.run_invert(store, InvertConfig(), "p", QUIET),
        lambda store: stages.run_erase(store, EraseConfig(), "p", QUIET),
        lambda store: stages.run_evaluate(store, EvaluateConfig(), "p", QUIET),
        lambda store: stages.run_report(store, store.path, "p", QUIET),
    ],
)
def test_a_stage_without_the_one_before_names_it(tmp_path, call):
    with Store.open(tmp_path) as store:
        ensure_project(store, "p")
        with pytest.raises(NotFoundError, match="run `hfi"):
            call(store)


def test_simulated_annotators_need_a_flag_project_and_a_known_group(tmp_path):
    with Store.open(tmp_path) as store:
        store.create_project("r", kind="ranking")
        with pytest.raises(HFIError, match="flag"):
            stages.run_simulate(store, SimulateConfig(), "r", QUIET)
        add_judged_square(store, "p", [])
        with pytest.raises(HFIError, match="no group 'dragon'"):
            stages.run_simulate(store, SimulateConfig(concept="dragon"), "p", QUIET)
