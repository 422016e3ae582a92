"""Concept: what is chosen and refused, and how score models and tokens are shown for what they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hfi.job_requests import InvertRequest, ScoreRequest
from storage import Store
from storage.records import ItemInput, Run
from storage.snapshot import create_snapshot
from tests.ui.page_visits import SCRIPT, build_visited_store, judge, visit
from ui.pages.concept import NOW, concept_html, open_concept, read_score, read_token, show_concept, show_what_came
from ui.pages.job_fields import Fields
from ui.pages.jobs_frame import read_request


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with build_visited_store(tmp_path / "store") as opened:
        judge(opened)
        yield opened


def add_score(store: Store, auroc: float | None = 0.9, low: float = 0.8, seed: int = 0, **more: Any) -> Run:
    """A score model that gives the pictures rising scores."""
    settings = {"project": "weapons", "config": {"seed": seed}}
    run = store.start_run("score", settings, create_snapshot(store, "weapons").hash)
    pictures = [picture.sha256 for picture in store.list_pictures("weapons").pictures]
    with store.writing_artifact(run.id, "score-model", "score_model") as folder:
        scores = {sha256: [number / 12, 0.1] for number, sha256 in enumerate(pictures)}
        (folder / "scores.json").write_text(json.dumps(scores))
        held_out = {"scores": [0.1, 0.9, 0.8, 0.2], "is_flagged": [False, True, True, False]}
        (folder / "held_out.json").write_text(json.dumps(held_out))
    figures = {"auroc": auroc, "low": low, "high": 0.95, "n": 4, "images": 12, "flagged": 6, "brier": 0.1}
    return store.finish_run(run.id, "done", figures | more, 3.0)


def add_tokens(store: Store, score: Run, concept_score: float, placeholder: str = "<weapon>") -> Run:
    """Tokens of one placeholder whose pictures have a concept score."""
    settings = {"project": "weapons", "config": {}, "inputs": {"score_run": score.id}}
    run = store.start_run("invert", settings, score.snapshot_hash)
    flagged = [store.list_pictures("weapons").pictures[0].sha256]
    card = {"placeholder": placeholder, "initializer": "knife", "folder": "weapon", "previews": ["preview-1.png"]}
    with store.writing_artifact(run.id, "tokens", "concept_tokens") as folder:
        content = {"tokens": [card | {"concept_score": concept_score, "num_vectors": 1, "flagged": flagged}]}
        (folder / "tokens.json").write_text(json.dumps(content))
        (folder / "weapon").mkdir()
        figures = {"coverage": 0.62, "first_loss": 0.25, "final_loss": 0.125, "num_steps_done": 40}
        (folder / "weapon" / "card.json").write_text(json.dumps(figures))
    return store.finish_run(run.id, "done", {"coverage": 0.62, "tokens": 1}, 3.0)


def test_a_project_without_anything_says_what_comes_first(store: Store, tmp_path: Path) -> None:
    snapshot, uncovers, html = show_concept(visit(store), "weapons")
    assert snapshot["value"] == NOW and len(snapshot["choices"]) == 1 and not uncovers["visible"]
    assert "Judge pictures of this project" in html and "Train a score model first" in html
    create_snapshot(store, "weapons")
    assert len(show_concept(visit(store), "weapons")[0]["choices"]) == 2
    store.create_project("pairs", kind="pair")
    choice = open_concept(visit(store, project="pairs"))[0]
    assert choice["choices"] == ["weapons", "pairs"] and choice["value"] == "pairs", "people may have compared pictures"
    assert show_what_came(visit(store), None) == show_what_came(visit(store), None)


def test_a_score_model_is_shown_with_its_interval_and_its_nearest_pictures(store: Store) -> None:
    add_score(store)
    html = concept_html(visit(store), "weapons")
    assert "0.900" in html and "from 0.800 to 0.950" in html and "no better than chance" not in html
    assert html.count("<svg") == 2 and html.count("/thumb/") == 12
    assert html.index(">0.92<") < html.index(">0.83<")  # nearest first
    assert "really saw" not in html
    add_score(store, without_errors={"estimate": 0.97, "low": 0.91, "high": 0.99, "n": 4, "confidence": 0.95})
    assert "what the simulated annotators really saw 0.970, 0.910 to 0.990" in concept_html(visit(store), "weapons")
    add_score(store, low=0.4)
    assert "no better than chance" in concept_html(visit(store), "weapons")
    add_score(store, auroc=None)
    assert "too few prompts were held out" in concept_html(visit(store), "weapons")


def test_a_score_model_of_comparisons_says_how_many_it_decides_as_people_did(store: Store) -> None:
    add_score(store)
    assert "comparisons" not in concept_html(visit(store), "weapons")
    add_score(store, comparisons=1313, pair_accuracy={"estimate": 0.77, "low": 0.68, "high": 0.84, "n": 104})
    html = concept_html(visit(store), "weapons")
    assert "77 %" in html and "104 held-out comparisons" in html and "it learned from 1,313" in html
    assert "6 of them in the upper of two groups, which counts as flagged" in html


def test_tokens_are_shown_with_what_they_reproduce(store: Store) -> None:
    run = add_tokens(store, add_score(store), 0.81)
    html = concept_html(visit(store), "weapons")
    for words in ("&lt;weapon&gt;", "0.81", "62 %", "0.250 at first, 0.125 after 40 steps", "starting at “knife”"):
        assert words in html
    assert f"/artifact/{run.id}/tokens/weapon/preview-1.png" in html and "refused" not in html
    assert "in their own prompts" not in html and "of “a &lt;weapon&gt;”" in html
    card = store.artifact_dir(run.id) / "tokens" / "weapon" / "card.json"
    card.write_text(json.dumps({"templates": "prompts"}))
    html = concept_html(visit(store), "weapons")
    assert "in their own prompts" in html and "of “&lt;weapon&gt;”" in html
    add_score(store)  # of the same judgments, such as one that scored more pictures
    assert "an earlier score model" not in concept_html(visit(store), "weapons")
    add_score(store, seed=1)
    assert "an earlier score model" in concept_html(visit(store), "weapons")


def test_pictures_that_nobody_judged_are_counted_and_the_disputed_ones_shown(store: Store) -> None:
    add_score(store)
    html = concept_html(visit(store), "weapons")
    assert "nobody judged" not in html and "Not judged yet" not in html
    picture = store.add_image(Image.new("RGB", (64, 64), (1, 2, 3))).sha256
    store.add_items("weapons", [ItemInput((picture,), "a pistol that nobody saw")])
    add_score(store, unjudged=1, unjudged_likely=1)
    html = concept_html(visit(store), "weapons")
    assert "1 that nobody judged are scored too, 1 of them look like the concept" in html
    assert html.index("Not judged yet, and the model disagrees") < html.rindex("a pistol that nobody saw")


def test_a_token_that_does_not_reproduce_the_concept_says_why_it_is_refused(store: Store) -> None:
    add_tokens(store, add_score(store), 0.12, SCRIPT)
    html = concept_html(visit(store), "weapons")
    assert "refused" in html and "score 0.12, at least 0.3" in html and "more steps or vectors" in html
    assert "<script" not in html


def test_pictures_of_a_sensitive_project_are_covered(tmp_path: Path) -> None:
    with build_visited_store(tmp_path / "store", is_sensitive=True) as sensitive:
        judge(sensitive)
        add_tokens(sensitive, add_score(sensitive), 0.8)
        _, uncovers, html = show_concept(visit(sensitive), "weapons")
        assert uncovers["visible"] and html.count("covered") == html.count('<ul class="board')


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        ({"config.placeholder": "weapon"}, "config.placeholder", "angle brackets"),
        ({"config.placeholder": "<a b>"}, "config.placeholder", "angle brackets"),
        ({"config.model": "nowhere"}, "config.model", "There is no model"),
        ({"config.num_concepts": "many"}, "config.num_concepts", "many"),
    ],
)
def test_what_is_wrong_with_a_token_is_told_at_its_field(changes: dict[str, str], place: str, words: str) -> None:
    typed: dict[str, Any] = {"config.model": "mini", "config.placeholder": "<a>", "config.num_concepts": "auto"}
    fields = Fields(typed | changes)
    assert read_request(InvertRequest, "weapons", None, fields, read_token, list(typed)) is None  # type: ignore[arg-type]
    assert list(fields.problems) == [place] and words in fields.problems[place]


def test_what_is_judged_now_is_frozen_when_it_is_asked_for() -> None:
    fields = Fields({"snapshot": NOW, "config.clip": "mini"})
    request = read_request(ScoreRequest, "weapons", None, fields, read_score)  # type: ignore[arg-type]
    assert isinstance(request, ScoreRequest) and request.snapshot == ""
    fields = Fields({"snapshot": "a" * 64, "config.clip": "/nowhere"})
    assert read_request(ScoreRequest, "weapons", None, fields, read_score) is None  # type: ignore[arg-type]
    assert "There is no folder" in fields.problems["config.clip"]
