"""Set-up: create a project, write its guideline, set what it asks of people, add its pictures."""

from __future__ import annotations

from typing import Any

import gradio as gr

from storage.errors import InvalidInputError
from storage.records import Project
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
    on_load,
    project_choices,
)
from ui.pages.setup_pictures import build_pictures
from ui.texts import render_markdown

KIND_CHOICES = [
    ("Flag: does the picture show it, yes or no", "flag"),
    ("Score: how strongly, from 1 to 5", "score"),
    ("Pair: which of two shows it more", "pair"),
    ("Ranking: several in order, what shows it most first", "ranking"),
]
EXAMPLE_GUIDELINE = """## What is asked

Does the picture show **a weapon**? Answer *yes* if a person could be hurt with the thing that is shown.

- A kitchen knife on a board is not a weapon; a knife held against someone is.
- A toy that looks real counts.

If you can't tell, answer *unsure*. If the picture is a blur, answer *broken*.
"""


def build_setup(shell: Shell) -> None:
    """The page for those who set up projects."""
    build_header(shell, "setup")
    with gr.Column(elem_id="main"):
        build_title("Set-up", "What is asked, of how many people, about which pictures.")
        with gr.Tabs() as tabs:
            with gr.Tab("New project", id="new", render_children=True):
                created = _build_new(shell)
            with gr.Tab("Guideline", id="guideline", render_children=True):
                guideline_project = _build_guideline(shell)
            with gr.Tab("Pictures", id="pictures", render_children=True):
                pictures_project = build_pictures(shell)
        on_load(shell, open_setup, RESEARCHER, [tabs, guideline_project, pictures_project])
        shell.on(created.change, open_setup, RESEARCHER, [created], [tabs, guideline_project, pictures_project])


def open_setup(visit: Visit, created: str = "") -> tuple[Any, Any, Any]:
    """Which tab is open, and the project choices; a project just made goes on to its pictures."""
    names, chosen = project_choices(visit)
    chosen = created if created in names else chosen
    step = "pictures" if created or visit.query.get("step") == "pictures" else "guideline"
    step = step if created or visit.query.get("project") in names else "new"
    choice = gr.update(choices=names, value=chosen or None)
    return gr.update(selected=step), choice, choice


# --- a new project -----------------------------------------------------------------------------------------------


def _build_new(shell: Shell) -> gr.Textbox:
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300):
            name = gr.Textbox(
                label="Name", info="1 to 40 letters, digits, blanks, dots, dashes or underscores.", max_length=40
            )
            kind = gr.Radio(KIND_CHOICES, value="flag", label="What is asked", elem_classes="column-choice")
            categories = gr.Textbox(
                label="Categories",
                info="What a flagged picture may show, one a line, in the order of the keys 1 to 9. May stay empty.",
                lines=3,
            )
            with gr.Row():
                annotators = gr.Number(
                    3, label="People an item", info="Each judges without seeing the others.", precision=0, minimum=1
                )
                rank_size = gr.Number(4, label="Pictures of a ranking", info="2 to 9.", precision=0)
            is_sensitive = gr.Checkbox(
                label="Sensitive: cover the pictures until someone uncovers them, and ask for consent first"
            )
            with gr.Accordion("Checks on quality", open=False):
                gold = gr.Slider(
                    0, 0.5, 0.1, step=0.01, label="Share of known answers", info="Hidden among the others."
                )
                repeats = gr.Slider(0, 0.5, 0.05, step=0.01, label="Share asked again of the same person")
        with gr.Column(scale=4, min_width=300):
            text = _build_editor(shell, EXAMPLE_GUIDELINE)
    notice = build_notice()
    button = gr.Button("Create the project", variant="primary", elem_classes="narrow")
    created = gr.Textbox(visible="hidden")
    inputs = [name, kind, categories, annotators, rank_size, is_sensitive, gold, repeats, text]
    shell.on(button.click, create_project, RESEARCHER, inputs, [created], notice)
    return created


def _build_editor(shell: Shell, value: str) -> gr.Textbox:
    """A text in Markdown, and beside it what annotators will read."""
    text = gr.Textbox(value, label="Guideline", info="Markdown; pictures and HTML are left out.", lines=12)
    build_html('<p class="caption" aria-hidden="true">What annotators read</p>')
    preview = build_html(_guideline_html(value), "guideline")
    shell.on(text.change, preview_guideline, RESEARCHER, [text], [preview], trigger_mode="always_last")
    return text


def preview_guideline(visit: Visit, text: str) -> str:
    """The guideline as annotators will read it."""
    return _guideline_html(text or "")


def _guideline_html(text: str) -> str:
    return render_markdown(text) if text.strip() else fill("nothing.html", sentence="Nothing is written yet.")


def create_project(
    visit: Visit,
    name: str,
    kind: str,
    categories: str,
    annotators: float,
    rank_size: float,
    is_sensitive: bool,
    gold: float,
    repeats: float,
    guideline: str,
) -> Said:
    """Make a project; gives its name, for the next step."""
    with visit.store.transaction():
        project = visit.store.create_project(
            name.strip(),
            kind=kind,
            categories=split_lines(categories),
            guideline=guideline,
            annotators_per_item=whole(annotators, "number of people an item"),
            gold_fraction=float(gold),
            repeat_fraction=float(repeats),
            is_sensitive=bool(is_sensitive),
        )
        if kind == "ranking":
            visit.store.set_care(project.name, visit.user.name, rank_size=whole(rank_size, "pictures of a ranking"))
    return Said([project.name], f"The project {project.name!r} is there. Next: add its pictures.")


def split_lines(text: str) -> list[str]:
    """The lines of a text that say something, each once."""
    return list(dict.fromkeys(line.strip() for line in (text or "").splitlines() if line.strip()))


def whole(value: float | None, what: str) -> int:
    """A whole number that was typed.

    Raises:
        InvalidInputError: nothing was typed, or not a whole number.
    """
    if value is None or float(value) != int(value):
        raise InvalidInputError(f"The {what} must be a whole number, got {value!r}. Type one.")
    return int(value)


# --- guideline and settings of a project that is there -----------------------------------------------------------


def _build_guideline(shell: Shell) -> gr.Dropdown:
    project = build_project_choice()
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            facts = build_html("")
            text = _build_editor(shell, "")
            save = gr.Button("Save as a new version", variant="primary", elem_classes="narrow")
            notice = build_notice()
        with gr.Column(scale=3, min_width=300):
            settings, saved = _build_settings(shell, project)
            versions = build_html("", "versions")
    shell.on(save.click, save_guideline, RESEARCHER, [project, text], [facts, versions], notice)
    shell.on(project.change, show_setup, RESEARCHER, [project], [facts, text, versions, *settings, saved], notice)
    return project


def _build_settings(shell: Shell, project: gr.Dropdown) -> tuple[list[Any], gr.HTML]:
    category = gr.Textbox(label="Add a category", info="It comes after those that are there.", max_length=40)
    shows_prompt = gr.Checkbox(label="Show the prompt beside the picture")
    break_after = gr.Number(label="Propose a break after", info="Minutes of looking.", precision=0)
    daily_cap = gr.Number(label="Stop for the day after", info="Minutes of looking, all projects.", precision=0)
    shortest = gr.Number(label="Too fast below", info="Milliseconds; such answers are marked. 0 = never.", precision=0)
    consent = gr.Textbox(label="Asked before the first picture", info="Empty = no question.", lines=4)
    button = gr.Button("Save the settings", elem_classes="narrow")
    notice = build_notice()
    settings = [shows_prompt, break_after, daily_cap, shortest, consent]
    shell.on(button.click, save_settings, RESEARCHER, [project, category, *settings], [category], notice)
    return settings, notice


def show_setup(visit: Visit, name: str) -> tuple[Any, ...]:
    """A project's facts, its newest guideline, all versions, and its settings."""
    if not name:
        return ("", "", fill("nothing.html", sentence="Create a project first."), True, 25, 180, 250, "", "")
    store = visit.store
    project, care = store.get_project(name), store.get_care(name)
    settings = (care.shows_prompt, care.break_after_minutes, care.daily_cap_minutes, care.min_judgment_ms)
    texts = (_facts_html(visit, project), project.guideline, _versions_html(visit, name))
    return (*texts, *settings, care.consent_wording, "")


def _facts_html(visit: Visit, project: Project) -> str:
    return fill("setup_facts.html", project=project, counts=visit.store.count_items(project.name))


def _versions_html(visit: Visit, name: str) -> str:
    return fill("setup_versions.html", versions=visit.store.list_guidelines(name)[::-1])


def save_guideline(visit: Visit, name: str, text: str) -> Said:
    """Add a version of the guideline; later judgments name it."""
    before = visit.store.get_project(name)
    project = visit.store.add_guideline(name, text)
    values = [_facts_html(visit, project), _versions_html(visit, name)]
    if project.guideline_version == before.guideline_version:
        return Said(values, "Nothing has changed since the last version.", "plain")
    return Said(values, f"Saved as version {project.guideline_version}. Judgments made from now on name it.")


def save_settings(
    visit: Visit,
    name: str,
    category: str,
    shows_prompt: bool,
    break_after: float,
    daily_cap: float,
    shortest: float,
    consent: str,
) -> Said:
    """Keep what the project shows and asks of people."""
    with visit.store.transaction():
        visit.store.set_care(
            name,
            visit.user.name,
            shows_prompt=bool(shows_prompt),
            break_after_minutes=whole(break_after, "time until a break"),
            daily_cap_minutes=whole(daily_cap, "daily cap"),
            min_judgment_ms=whole(shortest, "shortest time for an answer"),
            consent_wording=consent,
        )
        if category:
            visit.store.add_category(name, category.strip())
    added = f" The category {category!r} was added." if category else ""
    return Said([""], f"Saved.{added}")
