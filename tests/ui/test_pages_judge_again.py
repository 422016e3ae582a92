"""Judge again: pairs reach the label page blind, and what people say stands beside what detectors say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hfi.evaluate.detector_cache import DetectorCache
from hfi.evaluate.protocol import DetectorSpec
from hfi.job_requests import VerdictRequest
from hfi.jobs.evaluate import CACHE_NAME
from hfi.jobs.verdict import find_asking, known_detectors, pictures_of, read_verdict
from storage import Store
from tests.ui import people
from tests.ui.changed_models import NUM, add_erasure, add_evaluation, judge_pairs
from tests.ui.page_visits import build_visited_store, refusal, sentence, visit
from ui.pages.job_fields import Fields
from ui.pages.jobs_frame import read_request
from ui.pages.judge_again import ASKED, open_project, read_detectors, send_pairs, show_verdict, show_when_looked

JUDGE = DetectorSpec(
    name="judge", package="hfi", package_version="0.1.0", weights_sha256="a" * 64, classes=("bomb", "axe"),
    threshold=0.5,
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with build_visited_store(tmp_path / "store") as opened:
        yield opened


def send(store: Store, *runs: str, part: str = "concept", n: Any = NUM, people_each: Any = 2, seed: Any = 0) -> Any:
    return send_pairs(visit(store), "weapons", list(runs), part, n, people_each, seed)


def test_pairs_are_sent_blind_once_and_only_once(store: Store) -> None:
    run = add_evaluation(store, add_erasure(store), 60)
    said = send(store, run)
    assert sentence(said) == f"{NUM} pairs wait on the label page in the project 'weapons-again'."
    project = store.get_project("weapons-again")
    assert (project.kind, project.annotators_per_item) == ("pair", 2)
    shown = json.dumps([[item.prompt, item.images] for item in store.list_items("weapons-again")])
    assert "sdd" not in shown and "original" not in shown
    send(store, run)
    assert len(store.list_items("weapons-again")) == NUM


def test_people_find_the_pairs_on_the_label_page(tmp_path: Path) -> None:
    with people.build_store(tmp_path / "store") as store:
        send(store, add_evaluation(store, add_erasure(store), 60))
        app = people.build_pages(store)
        found = people.claim(people.client_of(app, "annotator"), 3, project="weapons-again")
        assert [item["kind"] for item in found] == ["pair"] * 3 and "sdd" not in json.dumps(found)
        app.context.close()


def test_the_verdict_of_people_comes_with_its_interval_and_agreement(store: Store) -> None:
    send(store, add_evaluation(store, add_erasure(store), 60))
    assert "no pair is decided yet" in show_verdict(visit(store), "weapons", find_asking(store, "weapons").id)
    judge_pairs(store, "weapons-again", "ann", NUM)
    judge_pairs(store, "weapons-again", "cy", NUM)
    html = show_verdict(visit(store), "weapons", find_asking(store, "weapons").id)
    found = read_verdict(store, "weapons")
    share = found["pairs"][0]["first_more"]
    assert share["n"] > 0 and f"{100 * share['estimate']:.1f} % [{100 * share['low']:.1f}" in html
    assert "people have</span>" not in html and '2</span><span class="what">people have judged' in html
    assert "original" in html and "sdd, both" in html and "/label/weapons-again" in html


def test_detectors_that_have_looked_stand_beside_people(store: Store) -> None:
    send(store, add_evaluation(store, add_erasure(store), 60))
    asking = find_asking(store, "weapons")
    assert [spec.name for spec in known_detectors(store, "weapons", asking)] == ["judge"]
    for name in ("ann", "cy"):
        judge_pairs(store, "weapons-again", name, NUM)
    with DetectorCache(store.path / "cache" / CACHE_NAME) as cache:
        pictures = pictures_of(store, asking)
        cache.put_scores(JUDGE.reader_sha256, {sha256: {"bomb": i / 100} for i, sha256 in enumerate(pictures)})
    verdict = read_verdict(store, "weapons")
    decided = verdict["pairs"][0]["first_more"]["n"]
    assert verdict["detectors"]["judge"]["n"] == decided > 0
    html = show_verdict(visit(store), "weapons", asking.id)
    assert "agrees with people" in html and f"<td>{decided}</td>" in html


def test_a_detector_that_has_not_looked_counts_nothing(store: Store) -> None:
    send(store, add_evaluation(store, add_erasure(store), 60))
    judge_pairs(store, "weapons-again", "ann", NUM)
    assert read_verdict(store, "weapons")["detectors"] == {"judge": None}


def test_the_page_opens_with_the_newest_of_everything(store: Store) -> None:
    others, chosen, board, again, _, timer = open_project(visit(store), "weapons")
    assert others["choices"] == [] and "Nothing has been measured" in board and not timer["active"]
    run = add_evaluation(store, add_erasure(store), 60)
    others, chosen, board, *_ = open_project(visit(store), "weapons")
    assert others["value"] == [run] and "Nobody has been asked yet" in board
    send(store, run)
    send(store, run, part="others")
    others, chosen, board, again, _, timer = open_project(visit(store), "weapons")
    assert len(chosen["choices"]) == 2 and "is better" in board and again["visible"] and timer["active"]
    assert "How often detectors" not in board  # which picture is better they do not know


def test_wrong_input_is_named(store: Store) -> None:
    run = add_evaluation(store, add_erasure(store), 60)
    other = add_evaluation(store, add_erasure(store, method="esd"), 30, num_inference_steps=25)
    store.create_project("elsewhere")
    foreign = add_evaluation(store, add_erasure(store, "elsewhere"), 30, "elsewhere")
    for said, place, words in (
        (send(store), "others", "No evaluation is chosen"),
        (send(store, "0" * 12), "others", "no evaluation of this project"),
        (send(store, foreign), "others", "no evaluation of this project"),
        (send(store, run, other), "others", "another protocol"),
        (send(store, run, part="both"), "part", "is no choice here"),
        (send(store, run, n=0), "num_pairs", "0 is too small"),
        (send(store, run, n=1e12), "num_pairs", "is too large"),
        (send(store, run, people_each=2.5), "annotators_per_item", "2.5 is not a whole number"),
        (send(store, run, seed=None), "seed", "Nothing is given here"),
    ):
        told = dict(zip(ASKED, said.values, strict=False))
        assert said.tone == "bad" and "look at the field" in said.sentence
        assert [name for name, html in told.items() if html] == [place] and words in told[place]
    assert "Nobody was asked" in refusal(show_verdict, visit(store), "weapons", run)
    assert all(item.name != "weapons-again" for item in store.list_projects())


def test_detectors_are_asked_for_by_name(store: Store) -> None:
    def ask(**values: Any) -> Any:
        fields = Fields({"asking": None, "detectors": ["opennsfw"], "detector_path": ""} | values)
        found = read_request(VerdictRequest, "weapons", visit(store), fields, read_detectors, list(fields.values))
        return found or fields.problems

    assert ask().detectors == ("opennsfw",) and ask().asking == ""
    assert "at least one" in ask(detectors=None)["detectors"]
    assert "value" not in show_when_looked(visit(store), SimpleNamespace(state="running"))
