"""Home: every project as a card, with some of its pictures, how far it is, and the way to judging."""

from __future__ import annotations

from typing import Any

import gradio as gr

from storage.gallery import GalleryFilter
from storage.records import Project
from ui.pages.frame import (
    ANNOTATOR,
    RESEARCHER,
    REVIEWER,
    Shell,
    Visit,
    build_header,
    build_html,
    build_title,
    fill,
    on_load,
)

N_STRIP = 6
ASKS = {
    "flag": "Does it show what it should not?",
    "score": "How strongly, from 1 to 5?",
    "pair": "Which of two is better?",
    "ranking": "Which order, best first?",
}


def build_projects(shell: Shell) -> None:
    """The home page."""
    build_header(shell, "")
    with gr.Column(elem_id="main"):
        build_title("Projects", "Look at pictures and say what should not be there.")
        cards = build_html(fill("waiting.html"), "cards-place")
    on_load(shell, show_projects, ANNOTATOR, [cards])


def show_projects(visit: Visit) -> str:
    """The cards, or what to do when there are none."""
    projects = visit.store.list_projects()
    if not projects:
        return fill("projects_empty.html", may_create=visit.may(RESEARCHER))
    cards = [describe_project(visit, project) for project in projects]
    return fill("projects.html", cards=cards, may_look=visit.may(REVIEWER), may_set_up=visit.may(RESEARCHER))


def describe_project(visit: Visit, project: Project) -> dict[str, Any]:
    """What a card says of a project."""
    store, progress = visit.store, visit.store.get_progress(project.id, visit.user.id)
    pictures = store.list_pictures(project.name, GalleryFilter(), page_size=N_STRIP).pictures
    return {
        "name": project.name,
        "kind": project.kind,
        "asks": ASKS[project.kind],
        "is_sensitive": project.is_sensitive,
        "is_demo": project.is_demo,
        "pictures": [picture.sha256 for picture in pictures],
        "annotators_per_item": project.annotators_per_item,
        **progress,
    }
