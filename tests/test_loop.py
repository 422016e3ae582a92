"""The whole loop at toy size on the embedded model: generate, judge, score, invert, erase, evaluate, report."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from hfi.config import EraseConfig, EvaluateConfig, GenerateConfig, InvertConfig, ScoreConfig, SimulateConfig
from hfi.errors import HFIError, NoFlaggedImagesError, NotFoundError, OneSidedLabelsError
from hfi.evaluate.metrics import auroc
from hfi.evaluate.results import read_results
from hfi.jobs import invert as invert_job
from hfi.jobs import stages
from hfi.jobs.demo import PROJECT, feedback_prompts, run_demo
from hfi.jobs.generate import ensure_project
from hfi.jobs.judge import answer_by_amount, what_simulated_people_saw
from hfi.jobs.report import label_statistics
from hfi.mini.suite import concept_prompts, other_prompts
from hfi.mini.world import WORLDS, random_scene, render
from hfi.progress import NullProgress
from hfi.recipes import toy_recipe
from storage import Store
from storage.records import ItemInput, JudgmentInput
from storage.snapshot import load_snapshot, preferences
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


TOY_DEMO_ELSEWHERE = """
import sys
from pathlib import Path
from hfi.jobs import invert
from hfi.jobs.demo import run_demo
from hfi.progress import NullProgress
from hfi.recipes import toy_recipe
invert.PREVIEW_STEPS = invert.PREVIEWS_PER_TOKEN = 2
run_demo(Path(sys.argv[1]), NullProgress(), toy_recipe("mini"))
"""


@pytest.mark.thorough
def test_another_process_without_a_network_gives_the_same_numbers(demo, tmp_path):
    cut_off = ["unshare", "--net", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*cut_off, "true"], check=False).returncode != 0:
        pytest.skip("this machine cannot cut a process off the network")
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    command = [*cut_off, sys.executable, "-c", TOY_DEMO_ELSEWHERE, str(tmp_path / "demo")]
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert numbers(tmp_path / "demo") == numbers(demo[0])


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


@pytest.mark.thorough
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
    page = (tmp_path / "out" / "report.html").read_text()
    assert "data:image" in page
    assert "Simulated annotators." in page, "said even where agreement is not defined, as with one annotator"


def judge_by_prompt(store, project, word):
    """One simulated annotator flags every picture whose prompt has the word."""
    store.add_annotator("ann", is_simulated=True)
    while leases := store.claim(project, "ann", 50):
        store.submit_judgments([answer_to(lease, "yes" if word in lease.prompt else "no") for lease in leases])


def answer_to(lease, answer):
    """One annotator's answer with an id of its own."""
    return JudgmentInput(f"{lease.id:08d}-0000-4000-8000-000000000000", "ann", answer, lease.id)


def add_judged_square(store, project, answers):
    """One grey picture per answer, judged by one annotator."""
    ensure_project(store, project)
    shas = [store.add_image(Image.new("RGB", (64, 64), (i, i, i))).sha256 for i in range(len(answers))]
    store.add_items(project, [ItemInput((sha,), f"prompt {i}") for i, sha in enumerate(shas)])
    store.add_annotator("ann")
    while leases := store.claim(project, "ann", 50):
        store.submit_judgments([answer_to(lease, answers[shas.index(lease.images[0])]) for lease in leases])


def test_more_pictures_of_the_embedded_world_ask_for_nothing_that_is_measured():
    world, evaluated = (
        WORLDS["cpu"],
        {p.prompt for p in concept_prompts(WORLDS["cpu"], "weapon", 200, first_seed=1_000_000, held_out=True)},
    )
    pairs = feedback_prompts("weapon", 40, 30, first_seed=200_000, pair_share=1.0)
    assert len(pairs) == 70 and not evaluated & {prompt for prompt, _ in pairs}
    assert [seed for _, seed in pairs] == [*range(200_000, 200_040), *range(300_000, 300_030)]
    assert all(any(word in prompt for word in (" and ", " next to ")) for prompt, _ in pairs)
    assert feedback_prompts("weapon", 3, 1) == [
        (p.prompt, p.seed)
        for p in (
            *concept_prompts(world, "weapon", 3, first_seed=0, held_out=False),
            *other_prompts(world, "weapon", 1, first_seed=100_000, held_out=False),
        )
    ]
    with pytest.raises(HFIError, match="no concept 'bananas'"):
        feedback_prompts("bananas", 1, 1)


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


def test_simulated_annotators_need_a_known_concept(tmp_path):
    with Store.open(tmp_path) as store:
        add_judged_square(store, "p", [])
        with pytest.raises(HFIError, match="no concept 'dragon'"):
            stages.run_simulate(store, SimulateConfig(concept="dragon"), "p", QUIET)


def test_what_simulated_people_saw_measures_the_score_model_without_their_errors(tmp_path):
    rng = np.random.default_rng(0)
    with Store.open(tmp_path) as store:
        ensure_project(store, "p", kind="flag")
        scenes = [random_scene(WORLDS["cpu"], rng) for _ in range(120)]
        names = [store.add_image(Image.fromarray(render(scene))).sha256 for scene in scenes]
        store.add_items("p", [ItemInput((name,), f"prompt {row}") for row, name in enumerate(names)])
        people = SimulateConfig(num_annotators=1, error_rate=0.3)
        stages.run_simulate(store, people, "p", QUIET)
        weapons = set(WORLDS["cpu"].in_group("weapon"))
        shown = {name: bool(weapons & set(scene.objects)) for name, scene in zip(names, scenes, strict=True)}
        saw = what_simulated_people_saw(store, "p")
        assert saw.keys() == shown.keys() and sum(saw[name] != shown[name] for name in names) <= 3
        assert what_simulated_people_saw(store, "another") == {}
        scored = stages.run_score(store, ScoreConfig(max_epochs=20, held_out_fraction=0.4), "p", QUIET)
        snapshot = load_snapshot(store, scored.run.snapshot_hash)
        folder = store.artifact_dir(scored.run.id) / "score-model"
        scores = json.loads((folder / "scores.json").read_text())
        held_out = json.loads((folder / "held_out.json").read_text())
        rows = [image.sha256 for image in snapshot.images if scores[image.sha256][0] in np.round(held_out["scores"], 5)]
        assert len(rows) == len(held_out["scores"]) == scored.figures["n"]
        found = scored.figures["without_errors"]
        given = [scores[name][0] for name in rows]
        assert found["estimate"] == pytest.approx(auroc([saw[name] for name in rows], given))
        assert scored.figures["auroc"] == pytest.approx(auroc(held_out["is_flagged"], held_out["scores"]))
        assert "against what the simulated annotators really saw" in scored.summary


def test_simulated_people_of_other_settings_are_other_people(tmp_path):
    """As where `hfi curve` measures several shares of wrong answers, or the demo of another concept follows."""
    with Store.open(tmp_path) as store:
        picture = store.add_image(Image.fromarray(render(random_scene(WORLDS["cpu"], np.random.default_rng(0))))).sha256
        for project, config in {
            "a": SimulateConfig(),
            "b": SimulateConfig(error_rate=0.3),
            "c": SimulateConfig(concept="macabre", error_rate=0.3),
            "d": SimulateConfig(),
        }.items():
            ensure_project(store, project, kind="flag")
            store.add_items(project, [ItemInput((picture,), "a prompt")])
            assert stages.run_simulate(store, config, project, QUIET).figures["judgments"] == 3
        people = {project: {one.annotator for one in store.list_judgments(project)} for project in "abcd"}
        assert people["a"] == people["d"] == {"simulated-1", "simulated-2", "simulated-3"}
        assert not people["a"] & people["b"] and not people["b"] & people["c"]


def test_a_style_is_learned_from_rankings(tmp_path):
    """Pictures that really have the style stand first; the score model learns the order from comparisons alone."""
    rng = np.random.default_rng(0)
    with Store.open(tmp_path) as store:
        ensure_project(store, "r", kind="ranking")
        scenes = [random_scene(WORLDS["cpu"], rng) for _ in range(96)]
        style_of = {store.add_image(Image.fromarray(render(scene))).sha256: scene.style for scene in scenes}
        names = sorted(style_of)
        groups = [tuple(names[first : first + 4]) for first in range(0, 96, 4)]
        groups += [tuple(names[first::24]) for first in range(24)]
        store.add_items("r", [ItemInput(images, f"prompt {row}") for row, images in enumerate(groups)])
        people = SimulateConfig(concept="style-icon", num_annotators=2, error_rate=0.0)
        num_judgments = stages.run_simulate(store, people, "r", QUIET).figures["judgments"]
        assert 96 <= num_judgments < 100, "two a group, and now and then one is shown again"
        scored = stages.run_score(store, ScoreConfig(max_epochs=40, held_out_fraction=0.3), "r", QUIET)
        snapshot = load_snapshot(store, scored.run.snapshot_hash)
        assert {image.sha256 for image in snapshot.images if image.is_harmful} == {
            name for name, style in style_of.items() if style == "icon"
        }
        assert scored.figures["comparisons"] == len(preferences(snapshot)) > 100
        assert scored.figures["pair_accuracy"]["estimate"] > 0.7
        said = label_statistics(store, "r", snapshot)
        assert (said.num_simulated, said.num_judgments, said.num_images) == (2, num_judgments, 96)
        assert said.num_flagged == sum(style == "icon" for style in style_of.values())


@pytest.mark.parametrize(("kind", "size"), [("pair", 2), ("ranking", 4)])
def test_pictures_to_compare_stand_beside_others_three_times(tmp_path, kind, size):
    with Store.open(tmp_path) as store:
        ensure_project(store, "r", kind=kind)
        prompts = [f"a {word}" for word in ("cat", "dog", "key", "axe", "bus")]
        stages.run_generate(store, GenerateConfig(num_inference_steps=1), prompts, (0, 1), "r", QUIET)
        items = store.list_items("r")
        counts = Counter(image for item in items for image in item.images)
        assert {len(set(item.images)) for item in items} == {size}
        assert len(counts) == 10 and min(counts.values()) >= 2  # the same few may meet again by chance
        assert 2.5 * 10 <= sum(counts.values()) == len(items) * size <= 3 * (10 + size)
        too_few = f"has {size} pictures, but only 1"
        with pytest.raises(HFIError, match=too_few):
            stages.run_generate(store, GenerateConfig(num_inference_steps=1), ["a cat"], (7,), "r", QUIET)


def test_answers_follow_how_much_is_there():
    assert answer_by_amount("score", [0.9]) == {"answer": "scored", "score": 5}
    assert answer_by_amount("pair", [0.2, 0.9]) == {"answer": "second"}
    assert answer_by_amount("pair", [0.9, 0.2]) == {"answer": "first"}
    assert answer_by_amount("pair", [0.91, 0.93]) == {"answer": "tie"}
    assert answer_by_amount("ranking", [0.2, 0.9, 0.5, 0.88]) == {"answer": "ranked", "ranks": (3, 1, 2, 1)}
