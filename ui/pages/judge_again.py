"""Judge again: the same words and seed by two models, blind, to people; what they chose, beside what detectors say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import gradio as gr
from pydantic import ValidationError

from hfi.config import DetectorName, JudgeAgainConfig
from hfi.job_requests import VerdictRequest
from hfi.jobs.judge_again import run_judge_again
from hfi.jobs.queue import Job
from hfi.jobs.side_by_side import list_evaluations, newest_of_each_model
from hfi.jobs.verdict import find_askings, read_verdict
from hfi.progress import NullProgress
from storage.errors import InvalidInputError
from storage.records import Run
from ui.pages.frame import (
    RESEARCHER,
    Said,
    Shell,
    Visit,
    build_header,
    build_html,
    build_notice,
    build_project_choice,
    build_title,
    fill,
    format_day,
    on_load,
    project_choices,
)
from ui.pages.job_fields import Fields, explain_errors
from ui.pages.jobs_frame import JobForm, JobWatch, field_message, tell_refusal
from ui.pages.results import describe_evaluation

PARTS = (
    ("Of the concept: which one shows it more?", "concept"),
    ("Of anything else: which one is better?", "others"),
)
DETECTORS = tuple(name for name in get_args(DetectorName) if name != "auto")
PLACES = ("num_pairs", "annotators_per_item", "seed")
ASKED = ("others", "part", *PLACES)
LOOK_AGAIN_SECONDS = 5.0
N_ASKING_OUTPUTS = 5  # of `show_askings`


def build_judge_again(shell: Shell) -> None:
    """The page for those who want people's word on a changed model."""
    build_header(shell, "judge_again")
    with gr.Column(elem_id="main"):
        text = "People see two pictures of the same words and seed, and don't know which model drew which."
        build_title("Judge again", text)
        project = build_project_choice()
        with gr.Column(elem_classes="panel"):
            asking = _build_asking()
        notice = build_notice()
        form = JobForm(shell, VerdictRequest, project)
        chosen = form.add("asking", "", lambda: gr.Dropdown([], label="Asked", visible=False))
        board = build_html(fill("waiting.html"), "verdict-place")
        heard = build_notice()  # of its own: what is asked every few seconds would wipe the other away
        again = gr.Button("Look again", size="sm", visible=False, elem_classes="narrow")
        with gr.Accordion("Let further detectors look at these pairs", open=False, visible=False) as more:
            button = _build_detectors(form)
            watch = JobWatch(shell, ("verdict",), project)
        timer = gr.Timer(LOOK_AGAIN_SECONDS, active=False)
    outputs = [chosen, board, again, more, timer]
    messages = [asking[f"{place} message"] for place in ASKED]
    watch.follow(show_when_looked, [board])
    form.connect(button, watch, read_detectors)
    watch.connect()
    inputs = [project, asking["others"], asking["part"], *(asking[place] for place in PLACES)]
    sent = [*messages, *outputs]
    shell.on(asking["send"].click, send_pairs, RESEARCHER, inputs, sent, notice, show_progress="minimal")
    shell.on(project.change, open_project, RESEARCHER, [project], [asking["others"], *outputs], notice)
    for trigger in (chosen.input, again.click, timer.tick):
        shell.on(trigger, show_verdict, RESEARCHER, [project, chosen], [board], heard)
    on_load(shell, open_judge_again, RESEARCHER, [project])


def _build_asking() -> dict[str, Any]:
    """What is sent to people."""
    build_html(fill("panel_title.html", title="Send pairs to people", text="The first evaluation gives the original."))
    found: dict[str, Any] = {}

    def add(place: str, made: Callable[[], Any], min_width: int) -> None:
        with gr.Column(min_width=min_width, elem_classes="job-field"):
            found[place], found[f"{place} message"] = made(), build_html("", "field-message")

    with gr.Row(equal_height=False):
        add("others", _build_others, 260)
        add("part", lambda: gr.Radio(list(PARTS), value="concept", label="Which pictures",
                                     elem_classes="column-choice"), 260)  # fmt: skip
    with gr.Row(equal_height=False):
        add("num_pairs", lambda: gr.Number(30, label="Pairs of each two models"), 160)
        add("annotators_per_item", lambda: gr.Number(3, label="People who judge each pair",
                                                     info="Whoever may judge finds it."), 160)  # fmt: skip
        add("seed", lambda: gr.Number(0, label="Seed", info="Of the choice and of the order."), 120)
    found["send"] = gr.Button("Send to the label page", variant="primary", elem_classes="narrow")
    return found


def _build_others() -> gr.Dropdown:
    return gr.Dropdown(
        [], multiselect=True, label="Models that are compared with the original",
        info="Evaluations of one protocol; two of them are compared with each other too.",
    )  # fmt: skip


def _build_detectors(form: JobForm) -> gr.Button:
    with gr.Row(equal_height=False):
        form.add(
            "detectors", "", lambda: gr.Dropdown(
                list(DETECTORS), multiselect=True, label="Detectors", info="Those of the evaluations have looked.",
            ), min_width=260,
        )  # fmt: skip
        form.add("detector_path", "Their weights", info="Folder or file on the server; for q16.", min_width=220)
    button = gr.Button("Let them look", elem_classes="narrow")
    form.build_notice()
    return button


# --- asking ------------------------------------------------------------------------------------------------------


def open_judge_again(visit: Visit) -> Any:
    """The project choices; what the address names is chosen."""
    names, chosen = project_choices(visit)
    return gr.update(choices=names, value=chosen or None)


def open_project(visit: Visit, name: str) -> tuple[Any, ...]:
    """Another project: its evaluations, and what people said when they were asked last."""
    if not name:
        empty = fill("nothing.html", sentence="There is no project yet. Set one up first.")
        hidden = gr.update(visible=False)
        return gr.update(choices=[], value=[]), hidden, empty, hidden, hidden, gr.update(active=False)
    evaluations = list_evaluations(visit.store, name)
    newest = newest_of_each_model(evaluations)[-1:]
    choices = [(describe_evaluation(visit, run), run.id) for run in evaluations]
    return gr.update(choices=choices, value=[run.id for run in newest]), *show_askings(visit, name)


def show_askings(visit: Visit, name: str) -> tuple[Any, ...]:
    """When people were asked, and their newest verdict."""
    askings = find_askings(visit.store, name)
    choices = [(describe_asking(run), run.id) for run in askings]
    there = bool(askings)
    is_asked_for = bool(visit.query.get("job"))  # that job would be shown behind this fold
    return (
        gr.update(choices=choices, value=choices[0][1] if there else None, visible=len(choices) > 1),
        show_verdict(visit, name, choices[0][1] if there else ""),
        gr.update(visible=there),
        gr.update(visible=there, open=True) if is_asked_for else gr.update(visible=there),
        gr.update(active=there),
    )


def describe_asking(run: Run) -> str:
    """One asking in a few words."""
    about = "of the concept" if run.metrics["part"] == "concept" else "of anything else"
    return f"{format_day(run.finished_at_us)}: {run.metrics['items']} pairs {about} ({run.id})"


def send_pairs(visit: Visit, name: str, others: Any, part: str, *numbers: Any) -> Said:
    """Make the pair project from the chosen evaluations; asking the same again changes nothing."""
    visit.store.get_project(name or "")
    fields = Fields(dict(zip(PLACES, numbers, strict=True)) | {"part": part})
    config = read_config(visit, name, [str(run_id) for run_id in others or []], fields)
    sentence, askings = "", [gr.skip()] * N_ASKING_OUTPUTS
    if config is not None:
        with fields.at("others"):
            done = run_judge_again(visit.store, config, name, NullProgress())
            figures, askings = done.figures, list(show_askings(visit, name))
            sentence = f"{figures['items']} pairs wait on the label page in the project {figures['project']!r}."
    messages = [field_message(fields.problems.get(place, "")) for place in ASKED]
    if fields.problems:
        return Said([*messages, *askings], tell_refusal(fields.problems, "Nothing was sent"), "bad")
    return Said([*messages, *askings], sentence)


def read_config(visit: Visit, name: str, run_ids: list[str], fields: Fields) -> JudgeAgainConfig | None:
    """What was typed; None, and `fields.problems`, if something is wrong with it."""
    known = {run.id for run in list_evaluations(visit.store, name)}
    with fields.at("others"):
        if not run_ids:
            raise InvalidInputError(
                "No evaluation is chosen. Measure a model on the page Results, then choose it here."
            )
        if not known.issuperset(run_ids):
            raise InvalidInputError("One of them is no evaluation of this project. Choose from the list.")
    try:
        config = JudgeAgainConfig.model_validate({"others": ",".join(run_ids), **fields.values})
    except ValidationError as error:
        fields.problems |= explain_errors(error, ASKED)
        return None
    return None if fields.problems else config


def read_detectors(visit: Visit, fields: Fields) -> None:
    """Who shall look at which pairs."""
    fields.values["asking"] = fields.values["asking"] or ""
    fields.values["detectors"] = fields.values["detectors"] or []


# --- hearing -----------------------------------------------------------------------------------------------------


def show_verdict(visit: Visit, name: str, asking_id: str | None) -> str:
    """What people chose so far, how far they agree, and how often detectors choose as they do."""
    if not asking_id:
        has_evaluations = bool(list_evaluations(visit.store, name))
        return fill("verdict_empty.html", project=name, has_evaluations=has_evaluations)
    verdict = read_verdict(visit.store, name, asking_id)
    return fill("verdict.html", verdict=verdict)


def show_when_looked(visit: Visit, job: Job | None) -> Any:
    """The verdict anew when detectors have looked."""
    if job is None or job.state != "done" or not job.request:
        return gr.skip()
    askings = find_askings(visit.store, job.project)
    asked = str(job.request.get("asking") or (askings[0].id if askings else ""))
    return show_verdict(visit, job.project, asked)
