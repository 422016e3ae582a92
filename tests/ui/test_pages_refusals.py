"""What a request lacks in the store or on this computer is told beside its field when the form is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from hfi.config import AttackConfig, EraseConfig, EvaluateConfig, GenerateConfig, InvertConfig
from hfi.job_requests import (
    AttackRequest,
    EraseRequest,
    EvaluateRequest,
    GenerateRequest,
    InvertRequest,
    JobRequest,
    ScoreRequest,
    VerdictRequest,
)
from hfi.jobs.readiness import find_problems
from storage import ItemInput, Store
from storage.records import Assignment, JudgmentInput
from storage.snapshot import create_snapshot
from tests.storage.builders import judge_all
from tests.ui.changed_models import add_erasure, add_evaluation, import_folder_with_suite
from tests.ui.page_visits import build_visited_store, judge, refusal, visit
from tests.ui.test_pages_concept import add_score, add_tokens
from ui.pages.concept import _check_clip
from ui.pages.generate import _read_seeds
from ui.pages.job_fields import Fields, check_model
from ui.pages.jobs_frame import read_request
from ui.pages.results import check_suite, read_measure
from ui.settings import UiSettings


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with build_visited_store(tmp_path / "store") as opened:
        yield opened


def problems_of(store: Store, request: JobRequest, *active: str) -> dict[str, str]:
    """What is told of a request, prepared as the queue does."""
    here = visit(store)
    try:
        return find_problems(store, here.queue.prepare(request), active)
    finally:
        here.queue.close()


def of_erasing(store: Store, *active: str, **config: Any) -> dict[str, str]:
    return problems_of(store, EraseRequest(project="weapons", config=EraseConfig(**config)), *active)


def answering(*answers: str) -> Callable[[Assignment, str], JudgmentInput]:
    """Somebody who gives these answers in turn, by the item's number."""
    return lambda lease, name: JudgmentInput(str(uuid4()), name, answers[lease.item_id % len(answers)], lease.id)


# --- erasing -----------------------------------------------------------------------------------------------------


def test_erasing_with_tokens_that_nobody_learned_is_told_at_the_targets(store: Store) -> None:
    judge(store)
    score = add_score(store)
    for targets in ("tokens", "both"):
        found = of_erasing(store, targets=targets)
        assert list(found) == ["config.targets"] and "page Concept" in found["config.targets"]
        assert of_erasing(store, "invert", targets=targets) == {}  # they are being learned
    assert of_erasing(store, targets="prompts") == of_erasing(store, targets="text", text="a gun") == {}
    add_tokens(store, score, 0.8)
    assert of_erasing(store, targets="tokens") == of_erasing(store, targets="both") == {}


def test_tokens_of_other_judgments_do_not_count(store: Store) -> None:
    judge(store, ("ann",))
    add_tokens(store, add_score(store), 0.8)
    judge(store, ("cy",))
    add_score(store)
    assert "from these judgments" in of_erasing(store, targets="tokens")["config.targets"]


def test_tokens_that_do_not_show_the_concept_are_told_before_the_job(store: Store) -> None:
    judge(store)
    add_tokens(store, add_score(store), 0.12)
    assert "the best scores 0.12, at least 0.3" in of_erasing(store, targets="tokens")["config.targets"]
    assert of_erasing(store, targets="tokens", allow_weak_tokens=True) == of_erasing(store, targets="both") == {}


def test_flagged_pictures_without_prompts_have_none_to_erase(store: Store) -> None:
    store.create_project("own", kind="flag")
    pictures = store.list_pictures("weapons").pictures[:4]
    store.add_items("own", [ItemInput((picture.sha256,), "") for picture in pictures])
    judge_all(store, "own", ("ann",), answering("yes", "no"))
    snapshot = create_snapshot(store, "own").hash
    run = store.start_run("score", {"project": "own", "config": {}}, snapshot)
    store.finish_run(run.id, "done", {}, 1.0)
    request = EraseRequest(project="own", config=EraseConfig(targets="prompts"))
    assert "no known prompts" in problems_of(store, request)["config.targets"]


# --- score models, tokens, pictures ------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "says"), [("no", "is flagged"), ("yes", "nothing to tell apart")])
def test_a_snapshot_with_one_kind_of_answer_is_told_at_the_snapshot(store: Store, answer: str, says: str) -> None:
    store.add_annotator("ann")
    judge_all(store, "weapons", ("ann",), answering(answer))
    found = problems_of(store, ScoreRequest(project="weapons"))
    assert list(found) == ["snapshot"] and says in found["snapshot"]


def test_a_snapshot_of_another_project_is_refused(store: Store) -> None:
    judge(store)
    store.create_project("other", kind="flag")
    request = ScoreRequest(project="other", snapshot=create_snapshot(store, "weapons").hash)
    assert "'weapons'" in problems_of(store, request)["snapshot"]
    assert problems_of(store, request.model_copy(update={"project": "weapons"})) == {}


def test_the_number_of_tokens_is_auto_or_one_and_more(store: Store) -> None:
    judge(store)
    add_score(store)
    for number, is_wrong in (("auto", False), (3, False), (0, True), (-2, True)):
        request = InvertRequest(project="weapons", config=InvertConfig(num_concepts=number))
        assert bool(problems_of(store, request)) == is_wrong


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"width_px": 65}, "config.width_px"),
        ({"height_px": 100}, "config.height_px"),
        ({"guard": "sld", "guard_tokens": "latest"}, "config.guard_tokens"),
        ({"guard": "sld", "guard_tokens": "0" * 12}, "config.guard_tokens"),
        ({"guard": "sld", "guard_tokens": "x" * 5000}, "config.guard_tokens"),
        ({"guard": "negative", "guard_text": "a gun", "guidance_scale": 1.0}, "config.guidance_scale"),
    ],
)
def test_pictures_that_cannot_be_drawn_are_told_at_their_field(store: Store, config: Any, place: str) -> None:
    request = GenerateRequest(project="weapons", prompts=("a",), config=GenerateConfig(**config))
    assert list(problems_of(store, request)) == [place]


def test_tokens_to_hold_back_are_found_by_their_run(store: Store) -> None:
    judge(store)
    run = add_tokens(store, add_score(store), 0.8)
    for name in ("latest", run.id):
        config = GenerateConfig(guard="sld", guard_tokens=name)
        assert problems_of(store, GenerateRequest(project="weapons", prompts=("a",), config=config)) == {}


# --- measuring, looking ------------------------------------------------------------------------------------------


def test_a_model_or_a_detector_that_is_not_there_is_told_at_its_field(store: Store) -> None:
    erased = add_erasure(store)
    store.create_project("other")
    foreign = add_erasure(store, "other")

    def asked(**config: Any) -> list[str]:
        values = {"erased": erased} | config
        return list(problems_of(store, EvaluateRequest(project="weapons", config=EvaluateConfig(**values))))

    assert asked() == asked(detector="opennsfw") == []
    assert asked(erased=foreign) == asked(erased=add_evaluation(store, erased, 20)) == ["config.erased"]
    assert asked(detector="score") == asked(detector="judge", suite="own.json") == ["config.detector"]
    assert asked(detector="q16") == asked(detector="q16", detector_path="/no/where") == ["config.detector_path"]
    attack = AttackConfig(erased=erased, attack="synonyms", suite="own.json")
    assert list(problems_of(store, AttackRequest(project="weapons", config=attack))) == ["config.attack"]
    flat, cartoon = (attack.model_copy(update={"suite": f"mini-style-{style}"}) for style in ("flat", "cartoon"))
    told = problems_of(store, AttackRequest(project="weapons", config=flat))["config.attack"]
    assert "no other word for flat style" in told
    assert problems_of(store, AttackRequest(project="weapons", config=cartoon)) == {}


def test_detectors_look_only_where_people_were_asked(store: Store) -> None:
    request = VerdictRequest(project="weapons", detectors=("opennsfw",))
    assert "Send pairs to people first" in problems_of(store, request)["asking"]
    erased = add_erasure(store)
    assert "in this project" in problems_of(store, request.model_copy(update={"asking": erased}))["asking"]


def test_a_run_that_is_no_erasure_cannot_be_measured(store: Store) -> None:
    run = add_evaluation(store, add_erasure(store), 20)
    fields = Fields({"config.erased": run, "config.protocol": "mini-weapons-quick"})
    places = list(fields.values)
    fields.values |= {f"config.{name}": "" for name in ("suite", "detector", "detector_path", "guidance_scale")}
    fields.values |= {f"config.num_{name}": 1 for name in ("concept_images", "other_images", "inference_steps")}
    assert read_request(EvaluateRequest, "weapons", visit(store), fields, read_measure, places) is None
    assert "no changed model" in fields.problems["config.erased"]


# --- what no field may end in a traceback with --------------------------------------------------------------------

ODD_NAMES = ("x" * 5000, "owner/" + "x" * 300, "a\0b", "", " ", "../..", "/etc/passwd", "~")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_refused_in_a_sentence(store: Store, name: str) -> None:
    for check in (check_model, _check_clip, lambda text: check_suite(visit(store), text)):
        assert len(refusal(check, name)) > 20
    assert (
        "are no seeds" in refusal(_read_seeds, name) if len(name) < 2000 else "too long" in refusal(_read_seeds, name)
    )


def test_a_file_that_is_no_suite_says_so_beside_its_field(store: Store, tmp_path: Path) -> None:
    suite = import_folder_with_suite(tmp_path / "suites")
    here = visit(store, "owner", UiSettings(import_folders=(str(suite.parent),)))
    for name in (str(suite), "mini-weapons", "mini-style-cartoon"):
        check_suite(here, name)
    assert "mini-style-flat" in refusal(check_suite, here, "mini-style-baroque")
    suite.write_text("[]", encoding="utf-8")
    assert "is not a suite" in refusal(check_suite, here, str(suite))


def test_a_weights_file_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"12345678")
    assert "no whole" in refusal(check_model, str(path))
    assert "config.json is missing" in refusal(_check_clip, str(tmp_path))
