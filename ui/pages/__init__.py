"""Gradio's pages: one Blocks with a page for each task. `build_pages` is the only door."""

from __future__ import annotations

import gradio as gr

from ui.pages.account import build_account
from ui.pages.concept import build_concept
from ui.pages.erase import build_erase
from ui.pages.export import build_export
from ui.pages.frame import PAGES, Context, Shell
from ui.pages.gallery import build_gallery
from ui.pages.generate import build_generate
from ui.pages.jobs import build_jobs
from ui.pages.judge_again import build_judge_again
from ui.pages.library import build_library
from ui.pages.people import build_people
from ui.pages.projects import build_projects
from ui.pages.quality import build_quality
from ui.pages.results import build_results
from ui.pages.setup import build_setup

BUILDERS = {
    "setup": build_setup,
    "gallery": build_gallery,
    "quality": build_quality,
    "export": build_export,
    "generate": build_generate,
    "concept": build_concept,
    "erase": build_erase,
    "results": build_results,
    "judge_again": build_judge_again,
    "library": build_library,
    "jobs": build_jobs,
    "people": build_people,
    "account": build_account,
}
UPLOADS_KEPT_SECONDS = 3600


def build_pages(context: Context) -> gr.Blocks:
    """All pages, to be mounted at ``/`` with `ui.theme.mount_options`.

    Args:
        context: the store, the settings, and who is asking.
    """
    blocks: gr.Blocks
    with gr.Blocks(
        title="HFI", analytics_enabled=False, fill_width=True, delete_cache=(UPLOADS_KEPT_SECONDS, UPLOADS_KEPT_SECONDS)
    ) as blocks:
        build_projects(Shell(context, "projects"))
    for path, name, _ in PAGES:
        if path in BUILDERS:
            with blocks.route(name, path, show_in_navbar=False):
                BUILDERS[path](Shell(context, path))
    return blocks
