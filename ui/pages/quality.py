"""Quality: how a project's judging goes, by annotator and by day; what is disputed, and deciding it; withdrawing."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from datetime import UTC, datetime
from typing import Any

import gradio as gr

from storage import Store
from storage.errors import InvalidInputError
from storage.gallery import DayCount
from storage.snapshot import withdraw_annotator
from storage.stats import measure_project
from ui.pages.frame import (
    OWNER,
    REVIEWER,
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
from ui.pages.quality_decide import build_disputes

N_DAYS = 14
N_KEPT = 8  # projects whose figures are kept until somebody judges again
N_BOOTSTRAP = 1000
_FIGURES: OrderedDict[tuple[str, str, int], dict[str, Any]] = OrderedDict()


def build_quality(shell: Shell) -> None:
    """The page for those who answer for the judgments."""
    build_header(shell, "quality")
    with gr.Column(elem_id="main"):
        build_title("Quality", "How far people agree, how each of them judges, and what a reviewer must decide.")
        project = build_project_choice()
        notice = build_notice()
        with gr.Tabs():
            with gr.Tab("Overview", render_children=True):
                overview = build_html(fill("waiting.html"))
            with gr.Tab("People", render_children=True):
                people = build_html("")
            with gr.Tab("Days", render_children=True):
                days = build_html("")
            with gr.Tab("Disagreement", render_children=True):
                build_disputes(shell, project)
            with gr.Tab("Withdraw", visible=False, render_children=True) as withdraw_tab:
                annotator = _build_withdraw(shell)
    shell.on(project.change, show_quality, REVIEWER, [project], [overview, people, days, annotator], notice)
    on_load(shell, open_quality, REVIEWER, [project, withdraw_tab])


def open_quality(visit: Visit) -> tuple[Any, Any]:
    """The project choices, and withdrawing for owners."""
    names, chosen = project_choices(visit)
    return gr.update(choices=names, value=chosen or None), gr.update(visible=visit.may(OWNER))


def show_quality(visit: Visit, name: str) -> tuple[str, str, str, Any]:
    """The figures of a project as three pages, and whose work could be withdrawn."""
    if not name:
        return (
            fill("nothing.html", sentence="There is no project yet. Set one up first."),
            "",
            "",
            gr.update(choices=[]),
        )
    figures, counts = measure(visit.store, name), visit.store.list_days(name)
    by_day = tabulate_days(counts)
    people = [
        {**row, **sums}
        for row in figures["annotators"]
        for sums in [add_up([count for count in counts if count.annotator == row["annotator"]])]
    ]
    exposures = add_exposures(visit.store.list_exposures(name))
    for row in people:
        row["minutes"] = exposures.get(row["annotator"], 0.0)
    overview = fill("quality_overview.html", figures=figures, by_day=by_day)
    table = fill("quality_people.html", people=people, kind=figures["kind"])
    drift = fill("quality_days.html", **tabulate_drift(counts), kind=figures["kind"])
    return overview, table, drift, gr.update(choices=[row["annotator"] for row in people], value=None)


def measure(store: Store, name: str) -> dict[str, Any]:
    """`measure_project`, kept until somebody judges again: with many judgments it takes seconds."""
    key = (str(store.path), name, store.newest_judgment(name))
    if key not in _FIGURES:
        _FIGURES[key] = measure_project(store, name, n_bootstrap=N_BOOTSTRAP)
        while len(_FIGURES) > N_KEPT:
            _FIGURES.popitem(last=False)
    return _FIGURES[key]


def add_up(counts: list[DayCount]) -> dict[str, int]:
    """An annotator's days together."""
    names = ("n_substantive", "n_positive", "n_revealed", "n_too_fast")
    return {name: sum(getattr(count, name) for count in counts) for name in names}


def add_exposures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Minutes of looking of each annotator."""
    minutes: dict[str, float] = defaultdict(float)
    for row in rows:
        minutes[row["annotator"]] += row["minutes"]
    return dict(minutes)


def day_name(day: int) -> str:
    """A day counted from 1970-01-01 as a date."""
    return f"{datetime.fromtimestamp(day * 86_400, tz=UTC):%Y-%m-%d}"


def tabulate_days(counts: list[DayCount]) -> list[dict[str, Any]]:
    """Judgments of each of the last days, days without any included, with the height of their column in per cent."""
    if not counts:
        return []
    last = counts[-1].day
    sums: dict[int, int] = defaultdict(int)
    for count in counts:
        sums[count.day] += count.n_judgments
    days = range(max(counts[0].day, last - N_DAYS + 1), last + 1)
    top = max(sums[day] for day in days) or 1
    return [{"day": day_name(day), "n": sums[day], "height": round(100 * sums[day] / top, 1)} for day in days]


def tabulate_drift(counts: list[DayCount]) -> dict[str, Any]:
    """Each annotator's share of yes and of right gold answers on each of the last days on which anybody judged."""
    days = sorted({count.day for count in counts})[-N_DAYS:]
    cells = {(count.annotator, count.day): count for count in counts}
    names = sorted({count.annotator for count in counts if count.day in days})
    rows = [{"annotator": name, "cells": [cells.get((name, day)) for day in days]} for name in names]
    return {"days": [day_name(day) for day in days], "rows": rows}


# --- withdrawing -------------------------------------------------------------------------------------------------


def _build_withdraw(shell: Shell) -> gr.Dropdown:
    build_html(fill("withdraw_help.html"))
    annotator = gr.Dropdown([], label="Whose work", allow_custom_value=True)
    typed = gr.Textbox(label="Type the name again", info="So that it is not done by mistake.", max_length=40)
    button = gr.Button("Withdraw all their judgments", variant="stop", elem_classes="narrow")
    notice = build_notice()
    shell.on(button.click, withdraw, OWNER, [annotator, typed], [typed], notice)
    return annotator


def withdraw(visit: Visit, annotator: str, typed: str) -> Said:
    """Take an annotator's judgments out of everything made from now on, and freeze anew what held them."""
    user = visit.store.get_annotator(annotator or "")
    if typed != user.name:
        raise InvalidInputError(f"To withdraw the work of {user.name!r}, type that name; got {typed!r}.")
    visit.store.disable_account(user.name, visit.user.name)
    made = withdraw_annotator(visit.store, user.name, visit.user.name)
    frozen = [f"Project {snapshot.project!r} is frozen anew as {snapshot.hash[:12]}." for snapshot in made]
    without = "No snapshot was made: none held their work, or nobody else has judged there."
    sentences = [f"The work of {user.name!r} is withdrawn and they can judge no longer.", *(frozen or [without])]
    return Said([""], " ".join(sentences))
