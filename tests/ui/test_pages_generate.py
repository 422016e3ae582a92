"""Generate: prompts from three places, what is refused at which field, and the grid that fills."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hfi.job_requests import GenerateRequest
from hfi.jobs.queue import Job
from storage import GenerationParams, Store
from tests.storage.builders import add_pictures
from tests.ui.page_visits import SCRIPT, build_visited_store, visit
from ui.pages.generate import N_SHOWN, READY_SETS, open_generate, put_in_ready_set, read_generate, show_made
from ui.pages.job_fields import Fields
from ui.pages.jobs_frame import read_request

TYPED: dict[str, Any] = {
    "prompts": "a knife\n\n a gun \na knife", "file": None, "seeds": "0-2,7", "config.model": "mini",
    "config.guard": "none", "config.guard_text": "", "config.guard_tokens": "",
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with build_visited_store(tmp_path / "store") as opened:
        yield opened


def read(**changes: Any) -> tuple[Any, dict[str, str]]:
    """The request of what is typed, and what is wrong with it."""
    fields = Fields(TYPED | {place.replace("__", "."): value for place, value in changes.items()})
    places = list(fields.values)
    request = read_request(GenerateRequest, "weapons", None, fields, read_generate, places)  # type: ignore[arg-type]
    return request, fields.problems


def test_prompts_and_seeds_are_read_each_once(tmp_path: Path) -> None:
    request, _ = read()
    assert (request.prompts, request.seeds) == (("a knife", "a gun"), (0, 1, 2, 7))
    file = tmp_path / "more.txt"
    file.write_text("# a comment\na bomb\na gun\n", encoding="utf-8")
    assert read(file=str(file))[0].prompts == ("a knife", "a gun", "a bomb")
    assert read(prompts="", file=str(file))[0].prompts == ("a bomb", "a gun")


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        ({"prompts": " \n"}, "prompts", "at least one"),
        ({"prompts": "x" * 2001}, "prompts", "2,001 characters"),
        ({"seeds": "seven"}, "seeds", "are no seeds"),
        ({"seeds": ""}, "seeds", "are no seeds"),
        ({"seeds": "0-99999", "prompts": "a\nb"}, "seeds", "too many for one job"),
        ({"config__model": "no such"}, "config.model", "There is no model"),
        ({"config__guard": "sld"}, "config.guard_text", "nothing to hold back"),
        ({"config__guard_text": "a gun"}, "config.guard_text", "Choose negative or sld"),
    ],
)
def test_what_is_wrong_is_told_at_its_field(changes: dict[str, str], place: str, words: str) -> None:
    request, problems = read(**changes)
    assert request is None and list(problems) == [place] and words in problems[place]


def test_a_file_that_is_no_text_is_named_as_its_owner_knows_it(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "prompts.txt"
    file.parent.mkdir()
    file.write_bytes(b"\xff\xfe\x00")
    problem = read(file=str(file))[1]["file"]
    assert "prompts.txt is not" in problem and str(tmp_path) not in problem


def test_ready_sets_are_put_into_the_form(store: Store) -> None:
    here = visit(store)
    weapons = put_in_ready_set(here, "embedded model: weapons").splitlines()
    others = put_in_ready_set(here, "embedded model: anything but weapons").splitlines()
    assert len(weapons) > 10 and not set(weapons) & set(others)
    cartoons = put_in_ready_set(here, "embedded model: cartoon style").splitlines()
    others = put_in_ready_set(here, "embedded model: anything but cartoon style").splitlines()
    assert all("cartoon" in prompt or "drawn" in prompt for prompt in cartoons) and len(cartoons) > 10
    assert others and not any("cartoon" in prompt or "drawn" in prompt for prompt in others)
    assert len(READY_SETS) >= 6 and put_in_ready_set(here, "none") != ""
    assert open_generate(visit(store, project="weapons"))["value"] == "weapons"


def job_of(request: GenerateRequest) -> Job:
    """A job of that request, as the queue gives it."""
    content = request.model_dump(mode="json")
    place = {"id": "generate-1", "kind": "generate", "project": "weapons", "state": "running", "queue": "default"}
    times = {"created_at": 0.0, "started_at": 0.0, "finished_at": None}
    return Job(**place, **times, priority=10, user="", worker="", request=content)  # type: ignore[arg-type]


def test_the_grid_has_a_place_for_every_picture_and_fills(store: Store) -> None:
    request = GenerateRequest(project="weapons", prompts=("a", SCRIPT), seeds=(1, 2))
    here = visit(store)
    assert show_made(here, None)[1] == ""
    assert show_made(here, job_of(request))[1].count("Not made yet") == 4
    [picture] = add_pictures(store, 30)[29:]
    params = GenerationParams("a", seed=2, model_id="mini", guidance_scale=3.0, role="feedback")
    store.add_generation("weapons", picture, params)
    elsewhere = replace(params, seed=1, num_inference_steps=7)  # not what was asked for
    store.add_generation("weapons", add_pictures(store, 31)[30], elsewhere)
    elsewhere = replace(params, seed=1, scheduler="DPMSolverMultistepScheduler")
    store.add_generation("weapons", add_pictures(store, 32)[31], elsewhere)
    switch, board = show_made(here, job_of(request))
    assert board.count("Not made yet") == 3 and board.count("<img") == 1 and picture in board
    assert not switch["visible"] and "<script" not in board and "4 pictures" in board
    many = GenerateRequest(project="weapons", prompts=("a",), seeds=tuple(range(N_SHOWN + 1)))
    board = show_made(here, job_of(many))[1]
    assert board.count("<li>") == 1 and "newest 1 of 61" in board


def test_the_grid_of_a_sensitive_project_is_covered(tmp_path: Path) -> None:
    with build_visited_store(tmp_path / "store", is_sensitive=True) as sensitive:
        picture = add_pictures(sensitive, 30)[29]
        params = GenerationParams("a", seed=2, model_id="mini", guidance_scale=3.0, role="feedback")
        sensitive.add_generation("weapons", picture, params)
        request = GenerateRequest(project="weapons", prompts=("a",), seeds=(2,))
        switch, board = show_made(visit(sensitive), job_of(request))
        assert "board small covered" in board and switch["visible"]
