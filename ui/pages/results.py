"""Results: changed models side by side, one table a protocol; measure and attack more of them; reports to keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from hfi.config import EvaluateConfig
from hfi.evaluate.protocol import NAMED_PROTOCOLS
from hfi.evaluate.suites import load_suite
from hfi.job_requests import AttackRequest, EvaluateRequest
from hfi.jobs.queue import Job
from hfi.jobs.readiness import is_there
from hfi.jobs.side_by_side import (
    build_tables,
    describe_erasure,
    list_erasures,
    list_evaluations,
    newest_of_each_model,
)
from hfi.mini.concepts import named_suites
from hfi.mini.world import embedded_world
from hfi.progress import format_seconds
from storage.errors import InvalidInputError
from storage.records import Run
from ui.pages.frame import (
    RESEARCHER,
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
from ui.pages.job_fields import Fields
from ui.pages.jobs_frame import JobForm, JobWatch, build_uncovers

MAX_SHOWN_MODELS = 8
OWN_PROTOCOL = ""
# What an own protocol consists of; a named one fixes all of it.
OWN_FIELDS = (
    ("suite", "Prompts"), ("detector", "Who judges"), ("num_concept_images", "Pictures of the concept"),
    ("num_other_images", "Pictures of anything else"), ("sampler", "Sampler"), ("num_inference_steps", "Steps"),
    ("guidance_scale", "Guidance"), ("detector_path", "Weights of who judges"),
)  # fmt: skip
ATTACKS = (
    ("All of them", "all"), ("A new word for it", "reinversion"), ("A searched prefix", "prefix"),
    ("Other words", "synonyms"), ("Inverted pictures, without words", "latents"),
)  # fmt: skip
SOME_SUITES = "mini-weapons, mini-substances, mini-style-cartoon"


def build_results(shell: Shell) -> None:
    """The page for those who compare changed models."""
    build_header(shell, "results")
    with gr.Column(elem_id="main"):
        build_title("Results", "How much is gone, how much else was damaged, and what it cost. Same words, same seeds.")
        project = build_project_choice()
        with gr.Accordion("Measure or attack a model", open=False, elem_classes="panel") as panel:
            with gr.Tabs():
                with gr.Tab("Measure", render_children=True):
                    measure, erased = _build_measure(shell, project)
                with gr.Tab("Attack", render_children=True):
                    attack, attacked = _build_attack(shell, project)
            watch = JobWatch(shell, ("evaluate", "attack"), project)
        shown = gr.Dropdown(
            [], multiselect=True, label="Evaluations", max_choices=MAX_SHOWN_MODELS, visible=False,
            info="One table a protocol: numbers of different protocols are not put beside each other.",
        )  # fmt: skip
        uncovers = build_uncovers()
        notice = build_notice()
        board = build_html(fill("waiting.html"), "results-place")
    outputs = [shown, uncovers, board]
    watch.follow(show_when_done, outputs)
    for form, button in (measure, attack):
        form.connect(button, watch, read_measure if form is measure[0] else read_attack)
    watch.connect()
    shell.on(project.change, open_project, RESEARCHER, [project], [panel, erased, attacked, *outputs], notice)
    shell.on(shown.input, show_chosen, RESEARCHER, [project, shown], [board], notice, trigger_mode="always_last")
    on_load(shell, open_results, RESEARCHER, [project])


def _build_measure(shell: Shell, project: gr.Dropdown) -> tuple[tuple[JobForm, gr.Button], Any]:
    form = JobForm(shell, EvaluateRequest, project)
    with gr.Row(equal_height=False):
        erased = form.add("config.erased", "", lambda: _model_choice("Changed model"), min_width=260)
        protocols = [*((_describe_protocol(name), name) for name in NAMED_PROTOCOLS), ("Own settings", OWN_PROTOCOL)]
        protocol = form.add(
            "config.protocol", "", lambda: gr.Dropdown(
                protocols, value="mini-weapons-quick", label="Protocol", filterable=False,
                info="Everything that decides a number. Only equal protocols may be compared.",
            ), min_width=260,
        )  # fmt: skip
    with gr.Row(visible=False, equal_height=False) as own:
        for name, label in OWN_FIELDS:
            options: dict[str, Any] = {"min_width": 200}
            if name == "suite":
                options |= {"info": f"{SOME_SUITES}, … or a JSON file in a folder that may be imported from."}
            form.add(f"config.{name}", label, **options)
    with gr.Accordion("More", open=False), gr.Row(equal_height=False):
        form.add("config.neighbours", "Neighbours that must stay", info="By commas, such as axe, key.", min_width=220)
        form.add("config.batch_size", "Pictures at once", info="Does not change them.", min_width=160)
        form.add("config.device", "Device", info="auto takes a GPU.", min_width=160)
    button = gr.Button("Measure", variant="primary", elem_classes="narrow")
    form.build_notice()
    shell.on(protocol.input, show_own_fields, RESEARCHER, [protocol], [own])
    return (form, button), erased


def _build_attack(shell: Shell, project: gr.Dropdown) -> tuple[tuple[JobForm, gr.Button], Any]:
    form = JobForm(shell, AttackRequest, project)
    with gr.Row(equal_height=False):
        erased = form.add("config.erased", "", lambda: _model_choice("Changed model"), min_width=260)
        form.add(
            "config.attack", "Attack", info="Try to get the concept back.", choices=list(ATTACKS), min_width=220,
        )  # fmt: skip
        form.add("config.suite", "Prompts", info="Whose concept prompts are attacked.", min_width=200)
    with gr.Accordion("Budget", open=False), gr.Row(equal_height=False):
        for name, label in (
            ("num_images", "Prompts attacked"), ("num_inference_steps", "Steps of a picture"),
            ("num_train_steps", "New word: steps"), ("num_iterations", "Prefix: steps"), ("num_tries", "Prefix: tries"),
            ("seed", "Seed"),
        ):  # fmt: skip
            form.add(f"config.{name}", label, min_width=180)
    button = gr.Button("Attack", variant="primary", elem_classes="narrow")
    form.build_notice()
    return (form, button), erased


def _model_choice(label: str) -> gr.Dropdown:
    return gr.Dropdown([], label=label, info="Made on the page Erase.")


def _describe_protocol(name: str) -> str:
    fixed = NAMED_PROTOCOLS[name]
    n_pictures = 2 * (fixed["num_concept_images"] + fixed["num_other_images"])
    return f"{name}: {n_pictures} pictures, {fixed['num_inference_steps']} steps"


# --- what is asked -----------------------------------------------------------------------------------------------


def show_own_fields(visit: Visit, protocol: str) -> Any:
    """Own settings are asked for where no protocol fixes them."""
    return gr.update(visible=protocol == OWN_PROTOCOL)


def read_measure(visit: Visit, fields: Fields) -> None:
    """The model it came from, and of the settings those that the protocol leaves open."""
    values = fields.values
    if values["config.protocol"]:
        for name, _ in OWN_FIELDS:
            values.pop(f"config.{name}", None)
    else:
        with fields.at("config.suite"):
            check_suite(visit, values["config.suite"] or "")
    _read_model(visit, fields)


def read_attack(visit: Visit, fields: Fields) -> None:
    """The model it came from."""
    with fields.at("config.suite"):
        check_suite(visit, fields.values["config.suite"] or "")
    _read_model(visit, fields)


def _read_model(visit: Visit, fields: Fields) -> None:
    with fields.at("config.erased"):
        run_id = fields.values["config.erased"] or ""
        if not run_id:
            raise InvalidInputError("No model is chosen. Erase something first, then choose it here.")
        run = visit.store.get_run(run_id)
        if run.kind != "erase":
            raise InvalidInputError(f"{run_id!r} is no changed model. Choose one that is in the list.")
        fields.values["config.model"] = run.config["config"]["model"]


def check_suite(visit: Visit, name: str) -> None:
    """Whether these prompts may be used.

    Raises:
        InvalidInputError: it is neither a named suite nor a file in a folder that may be imported from.
        PromptFileError: the file is no suite.
    """
    suites = named_suites(embedded_world())
    if name in suites:
        return
    folders = [Path(folder).resolve() for folder in getattr(visit.context.settings, "import_folders", ())]
    place = Path(name).resolve() if is_there(name) else None
    if place is not None and place.is_file() and any(place.is_relative_to(folder) for folder in folders):
        load_suite(EvaluateConfig(suite=name, num_concept_images=1, num_other_images=1), None)
    else:
        raise InvalidInputError(
            f"There are no prompts {name[:80]!r}. Choose {', '.join(suites)}, or name a JSON file in a folder that may "
            "be imported from (`hfi ui --import-folder`)."
        )


# --- what is shown -----------------------------------------------------------------------------------------------


def open_results(visit: Visit) -> Any:
    """The project choices; what the address names is chosen."""
    names, chosen = project_choices(visit)
    return gr.update(choices=names, value=chosen or None)


def open_project(visit: Visit, name: str) -> tuple[Any, ...]:
    """Another project: its changed models to measure, its evaluations, and the tables of the newest."""
    if not name:
        empty = fill("nothing.html", sentence="There is no project yet. Set one up first.")
        nothing = gr.update(choices=[], value=None)
        return gr.update(open=False), nothing, nothing, gr.update(visible=False), gr.update(visible=False), empty
    erasures = [(describe_erasure(run), run.id) for run in list_erasures(visit.store, name)]
    known = [run_id for _, run_id in erasures]
    asked = visit.query.get("erased", "")
    chosen = asked if asked in known else known[0] if known else None
    is_open = bool(known) and (asked in known or not list_evaluations(visit.store, name))
    is_open = is_open or bool(visit.query.get("job"))  # where that job is shown
    models = gr.update(choices=erasures, value=chosen)
    return (gr.update(open=is_open), models, models, *show_newest(visit, name))


def show_newest(visit: Visit, name: str) -> tuple[Any, Any, str]:
    """The evaluations to choose from, the cover's switch, and the tables of the newest of each model."""
    evaluations = list_evaluations(visit.store, name)
    chosen = [run.id for run in newest_of_each_model(evaluations)[-MAX_SHOWN_MODELS:]]
    choices = [(describe_evaluation(visit, run), run.id) for run in evaluations]
    is_sensitive = visit.store.get_project(name).is_sensitive
    return (
        gr.update(choices=choices, value=chosen, visible=bool(choices)),
        gr.update(visible=is_sensitive and bool(choices)),
        tables_html(visit, name, chosen),
    )


def show_when_done(visit: Visit, job: Job | None) -> tuple[Any, ...]:
    """The tables anew when a job has measured or attacked something."""
    if job is None or job.state != "done":
        return gr.skip(), gr.skip(), gr.skip()
    return show_newest(visit, job.project)


def show_chosen(visit: Visit, name: str, run_ids: Sequence[str] | None) -> str:
    """The tables of the chosen evaluations."""
    return tables_html(visit, name, list(run_ids or [])[:MAX_SHOWN_MODELS])


def describe_evaluation(visit: Visit, run: Run) -> str:
    """An evaluation in a few words: what was measured, when."""
    erased = run.metrics.get("erased_run")
    what = describe_erasure(visit.store.get_run(erased)) if erased else f"a model folder ({run.id})"
    return f"{what}, measured {format_day(run.finished_at_us)}"


def tables_html(visit: Visit, name: str, run_ids: Sequence[str]) -> str:
    """One table a protocol, each with its protocol, its grid and its reports."""
    if not run_ids:
        return fill("results_empty.html", project=name, has_models=bool(list_erasures(visit.store, name)))
    tables = build_tables(visit.store, name, run_ids)
    is_covered = visit.store.get_project(name).is_sensitive
    return fill("results.html", tables=tables, is_covered=is_covered, format_seconds=format_seconds)
