"""Concept: what people flagged becomes a score model, and that becomes concept tokens; each is shown for what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from hfi.evaluate.charts import histogram, roc_curve
from hfi.job_requests import InvertRequest, ScoreRequest
from hfi.jobs.erase import MIN_TOKEN_SCORE
from hfi.jobs.invert import TOKENS_ARTIFACT
from hfi.jobs.queue import ACTIVE, Job
from hfi.jobs.readiness import is_there
from hfi.jobs.runs import latest_run
from hfi.jobs.score import SCORE_ARTIFACT, first_run_of_model
from storage.errors import InvalidInputError
from storage.gallery import GalleryFilter
from storage.records import Run
from ui.pages.export import snapshot_choices
from ui.pages.frame import (
    RESEARCHER,
    Shell,
    Visit,
    build_header,
    build_html,
    build_project_choice,
    build_title,
    fill,
    format_number,
    on_load,
    project_choices,
)
from ui.pages.job_fields import Fields, check_model
from ui.pages.jobs_frame import JobForm, JobWatch, build_uncovers

NOW = "now"
NOW_CHOICE = ("What is judged now (it is frozen first)", NOW)
N_NEAREST = 12
N_FLAGGED_OF_TOKEN = 6
SCORE_FIGURES = (
    "auroc", "low", "high", "n", "images", "flagged", "brier", "without_errors", "unjudged", "unjudged_likely",
    "comparisons", "pair_accuracy",
)  # fmt: skip
DISPUTED = GalleryFilter(agreement="not judged", order="most disputed by the model")
MORE_OF_SCORE = (
    ("num_members", "Members of the ensemble"), ("held_out_fraction", "Share held out"), ("max_epochs", "Passes"),
    ("hidden_dim", "Width"), ("dropout", "Dropout"), ("learning_rate", "Learning rate"), ("seed", "Seed"),
    ("ask_next", "Ask people next"), ("device", "Device"),
)  # fmt: skip
MORE_OF_INVERT = (
    ("initializer", "Words it starts from"), ("top_k", "Pictures used at most"), ("batch_size", "Pictures a step"),
    ("learning_rate", "Learning rate"), ("search", "Search"), ("weighting", "Weighting"), ("stopping", "Stopping"),
    ("start", "Start"), ("templates", "Prompts around it"), ("seed", "Seed"), ("device", "Device"),
)  # fmt: skip


def build_concept(shell: Shell) -> None:
    """The page for those who turn flags into something that a model can be changed with."""
    build_header(shell, "concept")
    with gr.Column(elem_id="main"):
        build_title(
            "Concept", "From what people said to a score model, and on to tokens that stand for it."
        )
        project = build_project_choice()
        with gr.Row(equal_height=False):
            with gr.Column(min_width=300, elem_classes="panel"):
                score, snapshot, train = _build_score_form(shell, project)
            with gr.Column(min_width=300, elem_classes="panel"):
                token, learn = _build_token_form(shell, project)
        watch = JobWatch(shell, ("score", "invert"), project)
        uncovers = build_uncovers()
        results = build_html(fill("waiting.html"))
        watch.follow(show_what_came, [results])
        score.connect(train, watch, read_score)
        token.connect(learn, watch, read_token)
        watch.connect()
    shell.on(project.change, show_concept, RESEARCHER, [project], [snapshot, uncovers, results])
    on_load(shell, open_concept, RESEARCHER, [project, results])


def _build_score_form(shell: Shell, project: gr.Dropdown) -> tuple[JobForm, Any, gr.Button]:
    text = "Learns to tell how strongly a picture shows the concept, from what people said."
    build_html(fill("panel_title.html", title="1 · Score model", text=text))
    form = JobForm(shell, ScoreRequest, project)

    def build_choice() -> gr.Dropdown:
        return gr.Dropdown([NOW_CHOICE], value=NOW, label="Learned from", filterable=False)

    snapshot = form.add("snapshot", "", build_choice)
    form.add("config.clip", "Reads pictures with", info="Folder of a CLIP model; mini = the embedded one.")
    with gr.Accordion("More", open=False):
        _build_more(form, MORE_OF_SCORE)
    button = gr.Button("Train the score model", variant="primary", elem_classes="narrow")
    form.build_notice()
    return form, snapshot, button


def _build_token_form(shell: Shell, project: gr.Dropdown) -> tuple[JobForm, gr.Button]:
    text = "Words of their own for what the model draws when it shows the concept; the newest score model chooses."
    build_html(fill("panel_title.html", title="2 · Concept tokens", text=text))
    form = JobForm(shell, InvertRequest, project)
    with gr.Row(equal_height=False):
        form.add("config.placeholder", "Name", info="Several get numbers.", min_width=120)
        form.add("config.num_concepts", "How many", info="auto: by what they cover.", min_width=120)
    with gr.Row(equal_height=False):
        form.add("config.num_train_steps", "Steps", info="Of the optimizer.", min_width=120)
        form.add("config.num_vectors", "Vectors each", info="1 to 16.", min_width=120)
    form.add("config.model", "Model", info="Whose words they become: folder, file, Hub id or mini.")
    with gr.Accordion("More", open=False):
        _build_more(form, MORE_OF_INVERT)
    button = gr.Button("Learn the tokens", variant="primary", elem_classes="narrow")
    form.build_notice()
    return form, button


def _build_more(form: JobForm, fields: tuple[tuple[str, str], ...]) -> None:
    with gr.Row(equal_height=False):
        for name, label in fields:
            form.add(f"config.{name}", label, min_width=200)


def open_concept(visit: Visit) -> tuple[Any, Any]:
    """The project choices; what the address names is chosen."""
    names, chosen = project_choices(visit)
    empty = fill("nothing.html", sentence="There is no project to judge pictures in yet. Set one up first.")
    return gr.update(choices=names, value=chosen or None), gr.skip() if names else empty


def show_concept(visit: Visit, name: str) -> tuple[Any, Any, str]:
    """A project's snapshots to choose from, the switch that uncovers, and what was learned so far."""
    project = visit.store.get_project(name or "")
    choices = [NOW_CHOICE, *snapshot_choices(visit.store, project.name)]
    return gr.update(choices=choices, value=NOW), gr.update(visible=project.is_sensitive), concept_html(visit, name)


def show_what_came(visit: Visit, job: Job | None) -> Any:
    """What was learned, when a job has ended."""
    return gr.skip() if job is None or job.state in ACTIVE else concept_html(visit, job.project)


def read_score(visit: Visit, fields: Fields) -> None:
    """The snapshot by its hash, none for what is judged now."""
    if fields.values["snapshot"] in (NOW, None):
        fields.values["snapshot"] = ""
    with fields.at("config.clip"):
        _check_clip(fields.values["config.clip"] or "")


def _check_clip(name: str) -> None:
    if name == "mini":
        return
    folder = Path(name)
    if not is_there(name) or not folder.is_dir():
        raise InvalidInputError(f"There is no folder {name[:60]!r} on the server. Write its path, or mini.")
    if not any((place / "config.json").is_file() for place in (folder, folder / "clip")):
        raise InvalidInputError(f"{name[:60]} is not a CLIP folder: config.json is missing. Give one that has it.")


def read_token(visit: Visit, fields: Fields) -> None:
    """The model must be there, and the placeholder no word that one may type by accident."""
    with fields.at("config.model"):
        check_model(fields.values["config.model"] or "")
    with fields.at("config.placeholder"):
        _check_placeholder((fields.values["config.placeholder"] or "").strip())


def _check_placeholder(name: str) -> None:
    if not (name.startswith("<") and name.endswith(">") and name[1:-1].strip()) or any(map(str.isspace, name)):
        raise InvalidInputError(
            f"{name[:60]!r} is no name for a token. Write a word in angle brackets, such as <weapon>."
        )


# --- what was learned --------------------------------------------------------------------------------------------


def concept_html(visit: Visit, name: str) -> str:
    """The newest score model and the newest tokens of a project."""
    project = visit.store.get_project(name)
    score_run, token_run = latest_run(visit.store, "score", name), latest_run(visit.store, "invert", name)
    return fill(
        "concept.html",
        project=project,
        score=describe_score(visit, score_run) if score_run else None,
        tokens=describe_tokens(visit, token_run, score_run) if token_run else None,
    )


def describe_score(visit: Visit, run: Run) -> dict[str, Any]:
    """A score model: how well it tells pictures of unseen prompts apart, and which it holds for the concept most."""
    held_out = _read(visit, run, SCORE_ARTIFACT, "held_out.json")
    scores, is_flagged = held_out.get("scores", []), held_out.get("is_flagged", [])
    visit.store.refresh_concept_scores(run.config["project"])
    wanted = GalleryFilter(order="highest score")
    nearest = visit.store.list_pictures(run.config["project"], wanted, page_size=N_NEAREST).pictures
    has_both = any(is_flagged) and not all(is_flagged)
    return {
        "run": run,
        **{name: run.metrics.get(name) for name in SCORE_FIGURES},
        "histogram": histogram(scores, is_flagged) if has_both else "",
        "roc": roc_curve(scores, is_flagged) if has_both else "",
        "nearest": [picture for picture in nearest if picture.concept_score is not None],
        "asked_next": visit.store.list_pictures(run.config["project"], DISPUTED, page_size=N_NEAREST).pictures,
    }


def _is_of_another_model(visit: Visit, run: Run, score_run: Run) -> bool:
    """Whether tokens were learned with other judgments or settings; one that only scored more pictures is no other."""
    used = run.config.get("inputs", {}).get("score_run")
    return used not in (score_run.id, first_run_of_model(visit.store, score_run).id)


def describe_tokens(visit: Visit, run: Run, score_run: Run | None) -> dict[str, Any]:
    """The tokens of an inversion: their pictures, what they reproduce, and why one is refused."""
    cards = _read(visit, run, TOKENS_ARTIFACT, "tokens.json").get("tokens", [])
    is_older = score_run is not None and _is_of_another_model(visit, run, score_run)
    return {
        "run": run,
        "coverage": run.metrics.get("coverage"),
        "is_older": is_older,
        "cards": [_describe_token(visit, run, card) for card in cards],
    }


def _describe_token(visit: Visit, run: Run, card: Mapping[str, Any]) -> dict[str, Any]:
    figures = _read(visit, run, TOKENS_ARTIFACT, f"{card['folder']}/card.json")
    score = card["concept_score"]
    refusal = ""
    if score < MIN_TOKEN_SCORE:
        refusal = (
            f"It does not reproduce the concept: its pictures score {format_number(score)}, at least "
            f"{MIN_TOKEN_SCORE} is needed. Erasing leaves it out. Learn again with more steps or vectors."
        )
    return {
        **card,
        "refusal": refusal,
        "coverage": figures.get("coverage"),
        "first_loss": figures.get("first_loss"),
        "final_loss": figures.get("final_loss"),
        "num_steps_done": figures.get("num_steps_done"),
        "is_in_prompts": figures.get("templates") == "prompts",
        "num_flagged": len(card["flagged"]),
        "flagged": card["flagged"][:N_FLAGGED_OF_TOKEN],
        "shown": [f"/artifact/{run.id}/{TOKENS_ARTIFACT}/{card['folder']}/{name}" for name in card["previews"]],
    }


def _read(visit: Visit, run: Run, artifact: str, name: str) -> dict[str, Any]:
    """A JSON file of a run's artifact; empty if it is not there or no longer whole."""
    try:
        content = json.loads((visit.store.path / "artifacts" / run.id / artifact / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
