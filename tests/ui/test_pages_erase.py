"""Erase: what is asked for becomes the right request, wrong input is told beside its field, looks are shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hfi.job_requests import EraseRequest
from storage import Store
from storage.snapshot import create_snapshot
from tests.ui.changed_models import add_erasure, add_samples
from tests.ui.page_visits import build_visited_store, judge, refusal, visit
from ui.pages.erase import OPTIONS_OF_METHOD, TRAINED, join_lines, read_erase, read_preview, show_method, show_ready
from ui.pages.erase_looks import MAX_LOOKS_SHOWN, move_slider, open_earlier, show_looks, show_slider, spread_looks
from ui.pages.job_fields import Fields
from ui.pages.jobs_frame import read_request


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with build_visited_store(tmp_path / "store") as opened:
        yield opened


def typed(**changes: Any) -> Fields:
    """The form as it is when the page is opened, with some changes; dots in names are written as two underscores."""
    config = EraseRequest().config.model_dump()
    names = ["method", "targets", "anchor", "text", "anchor_concept", "num_train_steps", "seed", "model"]
    names += ["retain_text", "retain_weight", "trainable", "allow_weak_tokens", "device"]
    names += [name for options in OPTIONS_OF_METHOD.values() for name, _ in options] + [name for name, _ in TRAINED]
    values = {f"config.{name}": config[name] for name in names} | {"sample_every_n_steps": 50, "sample_prompts": ""}
    return Fields(values | {name.replace("__", "."): value for name, value in changes.items()})


def asked(store: Store, read: Any = read_erase, **changes: Any) -> EraseRequest:
    fields = typed(**changes)
    request = read_request(EraseRequest, "weapons", visit(store), fields, read, list(fields.values))
    assert isinstance(request, EraseRequest), fields.problems
    return request


def problems(store: Store, **changes: Any) -> dict[str, str]:
    fields = typed(**changes)
    assert read_request(EraseRequest, "weapons", visit(store), fields, read_erase, list(fields.values)) is None
    return fields.problems


def test_the_form_as_it_opens_asks_for_the_defaults_with_samples(store: Store) -> None:
    request = asked(store)
    assert request.config == EraseRequest().config
    assert request.with_samples and request.sample_every_n_steps == 50 and request.project == "weapons"


def test_options_of_other_methods_are_left_out(store: Store) -> None:
    request = asked(store, config__method="esd", config__esd_variant="u", config__robust_rounds=7)
    assert (request.config.esd_variant, request.config.robust_rounds) == ("u", 3)


def test_words_and_lines_become_what_the_configuration_takes(store: Store) -> None:
    words = {"config__targets": "text", "config__text": "a gun\n a knife;\n\n", "config__anchor_concept": "unused"}
    request = asked(store, **words, config__retain_text="a cat\na dog", sample_prompts="a gun\n\na cat")
    assert request.config.text == "a gun; a knife" and request.config.anchor_concept == ""
    assert request.config.retain_text == "a cat; a dog" and request.sample_prompts == ("a gun", "a cat")
    assert join_lines(None) == ""


def test_the_preview_is_the_closed_form_of_the_same_targets(store: Store) -> None:
    changes = {"config__targets": "prompts", "config__method": "robust", "config__robust_rounds": 5}
    request = asked(store, read_preview, **changes, config__num_train_steps=900, config__learning_rate=1.0)
    assert (request.config.method, request.config.targets) == ("closed_form", "prompts")
    assert request.config.num_train_steps == 300 and request.config.robust_rounds == 3
    assert request.with_samples and request.sample_every_n_steps == 0


@pytest.mark.parametrize(
    ("changes", "place", "says"),
    [
        ({"config__num_train_steps": -1}, "config.num_train_steps", "0 or more"),
        ({"config__num_train_steps": 2.5}, "config.num_train_steps", "whole number"),
        ({"config__targets": "text"}, "config.text", "Say it in words"),
        ({"config__anchor": "concept", "config__anchor_concept": " "}, "config.anchor_concept", "Say it in words"),
        ({"config__model": "no such model"}, "config.model", "There is no model"),
        ({"config__learning_rate": None}, "config.learning_rate", "Nothing is given"),
        ({"sample_every_n_steps": -5}, "sample_every_n_steps", "0 or more"),
        ({"sample_prompts": "a\n" * 17}, "sample_prompts", "16 at most"),
    ],
)
def test_what_is_wrong_is_told_at_its_field(store: Store, changes: dict[str, Any], place: str, says: str) -> None:
    found = problems(store, **changes)
    assert says in found[place] and list(found) == [place]


def test_only_the_options_of_the_chosen_method_are_seen(store: Store) -> None:
    method, *groups = show_method(visit(store), "abo")
    assert "empty" in method["info"] or "without a prompt" in method["info"]
    assert [group["visible"] for group in groups] == [name == "abo" for name in OPTIONS_OF_METHOD]


def test_the_page_says_what_there_is_to_erase_with(store: Store) -> None:
    html, earlier = show_ready(visit(store), "weapons")
    assert "no score model" in html and not earlier["visible"]
    judge(store)
    snapshot = create_snapshot(store, "weapons").hash
    run = store.start_run("score", {"project": "weapons", "config": {}}, snapshot)
    store.finish_run(run.id, metrics={"images": 12, "flagged": 4, "auroc": 0.91})
    made = add_erasure(store)
    html, earlier = show_ready(visit(store), "weapons")
    assert "4 of them flagged" in html and "0.91" in html and "no concept tokens" in html
    assert [run_id for _, run_id in earlier["choices"]] == [made]


def test_looks_are_shown_as_they_come_and_escaped(store: Store) -> None:
    run_id = add_erasure(store)
    job = SimpleNamespace(run_id=run_id, project="weapons")
    assert show_looks(visit(store), job) == ("", "")
    add_samples(store, run_id)
    look, html = show_looks(visit(store), job)
    assert look == f"{run_id}:3" and html.count("<img") == 6
    assert f"/artifact/{run_id}/samples/step-000020/1.png" in html
    assert "<b>gun</b>" not in html and "&lt;b&gt;gun" in html
    assert "1.00 before, 0.20 after 40 steps" in html and "covered" not in html


def test_before_and_after_are_the_first_and_the_last_look(store: Store) -> None:
    run_id = add_erasure(store)
    add_samples(store, run_id)
    panel, slider, choice, uncovers = show_slider(visit(store), "weapons", f"{run_id}:3")
    assert panel["visible"] and not uncovers["visible"] and len(choice["choices"]) == 2
    before, after = slider["value"]
    assert before.getpixel((0, 0)) == (0, 0, 0) and after.getpixel((0, 0)) == (40, 0, 0) and before.width >= 256
    assert move_slider(visit(store), f"{run_id}:3", 1)["value"][1].getpixel((0, 0)) == (40, 1, 0)
    assert "no such sample" in refusal(move_slider, visit(store), f"{run_id}:3", 9)


def test_sensitive_projects_are_covered(tmp_path: Path) -> None:
    with build_visited_store(tmp_path / "store", is_sensitive=True) as store:
        run_id = add_erasure(store)
        add_samples(store, run_id)
        _, slider, _, uncovers = show_slider(visit(store), "weapons", f"{run_id}:3")
        assert "covered" in slider["elem_classes"] and uncovers["visible"]
        assert "covered" in show_looks(visit(store), SimpleNamespace(run_id=run_id, project="weapons"))[1]


def test_an_earlier_model_is_looked_at_again(store: Store) -> None:
    run_id = add_erasure(store)
    assert "without samples" in refusal(open_earlier, visit(store), "weapons", run_id)
    sheet = add_samples(store, run_id)
    assert open_earlier(visit(store), "weapons", run_id)[0] == f"{run_id}:3"
    store.create_project("other")
    assert "without samples" in refusal(open_earlier, visit(store), "other", run_id)
    assert spread_looks(sheet.points * 10)[-1] == sheet.points[-1]
    assert len(spread_looks(sheet.points * 10)) == MAX_LOOKS_SHOWN


def test_the_page_never_needs_torch() -> None:
    import subprocess

    code = "import ui.pages.erase, ui.pages.results, ui.pages.judge_again, ui.reports, hfi.jobs.report, sys; "
    run = subprocess.run([sys.executable, "-c", f"{code}assert 'torch' not in sys.modules"], capture_output=True)
    assert run.returncode == 0, run.stderr
