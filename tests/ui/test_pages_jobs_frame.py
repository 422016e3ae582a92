"""The block that pages share: what is wrong is told at its field, a job is asked for once, and watched."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from pydantic import ValidationError

from hfi.config import EraseConfig
from hfi.job_requests import EraseRequest, GenerateRequest, ImportRequest
from hfi.jobs.job_folder import JobProgress
from hfi.jobs.queue import JobQueue
from storage import Store
from tests.ui.page_visits import SCRIPT, build_visited_store, visit
from ui.pages.frame import Said, Shell, Visit
from ui.pages.job_fields import Fields, build_component, check_model, explain_errors, field_of, nest
from ui.pages.jobs_frame import JobForm, JobWatch, curves_of, read_request, watch_html


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with build_visited_store(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def here(store: Store) -> Iterator[Visit]:
    """A researcher's visit."""
    made = visit(store, "researcher")
    yield made
    made.queue.close()


def problems_of(**typed: Any) -> dict[str, str]:
    """What is told of a generate request."""
    fields = Fields({"prompts": ["a knife"], "seeds": [0]} | {key.replace("__", "."): v for key, v in typed.items()})
    assert read_request(GenerateRequest, "weapons", None, fields) is None or not fields.problems  # type: ignore[arg-type]
    return fields.problems


def test_what_is_typed_becomes_the_request() -> None:
    fields = Fields({"prompts": ["a", "b"], "seeds": [3], "config.num_inference_steps": 4.0})
    request = read_request(GenerateRequest, "weapons", None, fields)  # type: ignore[arg-type]
    assert isinstance(request, GenerateRequest) and request.config.num_inference_steps == 4
    assert (request.prompts, request.seeds, request.project) == (("a", "b"), (3,), "weapons")
    assert nest({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}


@pytest.mark.parametrize(
    ("typed", "place", "words"),
    [
        ({"config__num_inference_steps": 2.5}, "config.num_inference_steps", "2.5 is not a whole number"),
        ({"config__num_inference_steps": 0}, "config.num_inference_steps", "must be 1 or more"),
        ({"config__num_inference_steps": 5000}, "config.num_inference_steps", "must be 1000 or less"),
        ({"config__num_inference_steps": None}, "config.num_inference_steps", "Nothing is given"),
        ({"config__guidance_scale": float("nan")}, "config.guidance_scale", "is not a number"),
        ({"config__guard": "prayer"}, "config.guard", "'none', 'negative' or 'sld'"),
        ({"config__negative_prompt": "x" * 2001}, "config.negative_prompt", "At most 2000"),
        ({"prompts": []}, "prompts", "at least one"),
        ({"seeds": ["seven"]}, "seeds", "'seven' is not a whole number"),
    ],
)
def test_each_field_says_what_is_wrong_with_it(typed: dict[str, Any], place: str, words: str) -> None:
    problems = problems_of(**typed)
    assert list(problems) == [place] and words in problems[place]


def test_several_fields_are_told_at_once_and_a_rule_finds_its_field() -> None:
    assert len(problems_of(config__num_inference_steps=0, config__guidance_scale=0, prompts=[])) == 3
    with pytest.raises(ValidationError) as caught:
        EraseRequest.model_validate({"config": {"targets": "text"}})
    told = explain_errors(caught.value, ["config.targets", "config.text"])
    assert list(told) == ["config.text"] and told["config.text"].startswith("Text must be given")
    assert list(explain_errors(caught.value, [])) == [""]


def test_components_come_from_the_fields(store: Store) -> None:
    steps = build_component(field_of(EraseRequest, "config.num_train_steps"), "Steps")
    method = build_component(field_of(EraseRequest, "config.method"), "Method", value="esd")
    weak = build_component(field_of(EraseRequest, "config.allow_weak_tokens"), "Weak")
    text = build_component(field_of(EraseRequest, "config.text"), "Words")
    assert isinstance(steps, gr.Number) and steps.value == 300
    assert steps.info == EraseConfig.model_fields["num_train_steps"].description
    assert isinstance(method, gr.Dropdown) and method.value == "esd" and len(method.choices) == 5
    assert isinstance(weak, gr.Checkbox) and isinstance(text, gr.Textbox)


def test_check_model_knows_names_folders_and_hub_ids(tmp_path: Path) -> None:
    for name in ("mini", "owner/name"):
        check_model(name)
    for name, words in (("no such", "There is no model"), (str(tmp_path), "model_index.json"), ("", "There is no")):
        fields = Fields({})
        with fields.at("config.model"):
            check_model(name)
        assert words in fields.problems["config.model"]


# --- asking for a job, and watching it -----------------------------------------------------------------------------


class Page:
    """A page with a form for generating and its block, built as pages are."""

    def __init__(self, here: Visit) -> None:
        self.followed: list[str | None] = []
        with gr.Blocks():
            shell = Shell(here.context, "generate")
            project = gr.Dropdown(["weapons"])
            self.form = JobForm(shell, GenerateRequest, project)
            self.form.add("prompts", "Prompts", lambda: gr.Textbox(label="Prompts"))
            self.form.add("config.num_inference_steps", "Steps")
            self.form.build_notice()
            self.watch = JobWatch(shell, ("generate",), project)
            self.watch.follow(lambda visit, job: self.followed.append(job and job.state) or "seen", [gr.HTML()])
            self.form.connect(gr.Button("Start"), self.watch, self.read)
            self.watch.connect()

    @staticmethod
    def read(visit: Visit, fields: Fields) -> None:
        """Prompts, one a line."""
        fields.values["prompts"] = fields.values["prompts"].splitlines()

    def start(self, here: Visit, prompts: str, steps: float, project: str = "weapons") -> Said:
        """Press the button."""
        typed = Fields({"prompts": prompts, "config.num_inference_steps": steps})
        return self.form._start(here, project, typed, self.watch, self.read)


@pytest.fixture
def page(here: Visit) -> Page:
    async def build() -> Page:
        return Page(here)

    # In a thread of its own: playwright leaves a loop running in this one when the browser tests went before.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(lambda: asyncio.run(build())).result()


def test_a_wrong_field_starts_nothing_and_keeps_the_block(page: Page, here: Visit) -> None:
    said = page.start(here, "a knife", 0)
    assert said.tone == "bad" and "look at the field" in said.sentence
    large = page.start(here, "a knife", 1e30)
    assert "too large" in large.values[1] and large.tone == "bad"
    assert said.values[0] == "" and "0 is too small" in said.values[1] and 'role="alert"' in said.values[1]
    assert all(value == gr.skip() for value in said.values[2:])
    assert "no project" in page.start(here, "a knife", 2, "nowhere").sentence
    assert here.queue.list_jobs() == []


def test_the_same_thing_is_started_once(page: Page, here: Visit, store: Store) -> None:
    said = page.start(here, "a knife", 2)
    assert said.sentence == "Started." and said.tone == "good" and page.followed == ["waiting"]
    job_id = said.values[2]
    other = visit(store, "owner")
    again = page.start(other, "a knife", 2)
    other.queue.close()
    assert "Somebody has started the same already" in again.sentence and again.values[2] == job_id
    assert "You have started" in page.start(here, "a knife", 2).sentence
    assert [job.id for job in here.queue.list_jobs()] == [job_id]


def test_the_block_finds_its_job_again(page: Page, here: Visit, store: Store) -> None:
    first = page.start(here, "a knife", 2).values[2]
    newest = page.start(here, "a gun", 2).values[2]
    assert page.watch.find(here, "weapons").id == newest  # type: ignore[union-attr]
    for query, found in ((first, first), ("gone", newest), ("", newest)):
        again = Visit(here.context, here.user, {"job": query})
        assert page.watch.find(again, "weapons").id == found  # type: ignore[union-attr]
    store.create_project("other")
    assert page.watch.find(Visit(here.context, here.user, {"job": first}), "other") is None
    here.queue.submit(ImportRequest(project="weapons", path=__file__))
    assert page.watch.find(here, "weapons").id == newest  # type: ignore[union-attr]


def test_an_address_that_names_no_job_of_the_project_says_so_and_no_more(page: Page, here: Visit, store: Store) -> None:
    first = page.start(here, "a knife", 2).values[2]
    store.create_project("other")

    def told(chosen: str, **query: str) -> str:
        visited = Visit(here.context, here.user, query)
        return page.watch.tell_missing(visited, chosen, page.watch.find(visited, chosen))

    assert told("weapons") == told("weapons", job=first) == ""
    sentences = [told("other", job=first), told("other", job=first[:-1] + "9"), told("other", job=SCRIPT)]
    assert all("none of this page and project" in sentence for sentence in sentences)
    assert "a knife" not in sentences[0] and len({text.replace(first, "").replace(first[:-1] + "9", "")
                                                  for text in sentences[:2]}) == 1  # fmt: skip
    assert told("other", job=first, project="weapons") == ""  # another project was chosen by hand
    assert page.watch.values(Visit(here.context, here.user, {"job": first}), None)[:3] == ["", "", ""]


def test_the_block_shows_state_buttons_and_log(page: Page, here: Visit) -> None:
    job_id = page.start(here, "a knife", 2).values[2]
    folder = here.queue.folder(job_id)
    folder.path.mkdir(parents=True)
    folder.log_path.write_text(f"loading\n{SCRIPT}\n")
    _, state, shown, cancel, retry, log_panel, log, timer, followed = page.watch.values(
        here, here.queue.get_job(job_id)
    )
    assert "waiting" in state and "hfi work" in shown and followed == "seen"
    assert cancel["visible"] and not retry["visible"] and log_panel["visible"] and timer["active"]
    assert "loading" in log and "<script" not in log
    here.queue.cancel(job_id)
    _, state, _, cancel, retry, _, _, timer, _ = page.watch.values(here, here.queue.get_job(job_id))
    assert "cancelled" in state and not cancel["visible"] and retry["visible"] and not timer["active"]
    assert page.watch.values(here, None)[:2] == ["", ""] and page.followed[-1] is None


def test_progress_rate_and_curve_are_shown(here: Visit) -> None:
    job = here.queue.submit(ImportRequest(project="weapons", path=__file__)).job
    curve = [(step, {"loss": 1 / (step + 1)}) for step in range(10)]
    progress = JobProgress("train", 120, 300, {"loss": 0.031}, 2.5, 72.0, 0.0, "", curve)
    html = watch_html(here, job.__class__(**{**vars(job), "state": "running", "progress": progress}))
    for words in ("train: 120 of 300", "2.5 a second", "ends in about 1 min 12 s", "loss 0.031", "<svg"):
        assert words in html
    assert 'aria-valuenow="40"' in html
    assert curves_of(progress)[0]["last"] == 9 and curves_of(JobProgress()) == [] == curves_of(None)


def test_importing_the_pages_opens_no_queue(store: Store) -> None:
    assert JobQueue(store)._client is None and visit(store).queue._client is None
