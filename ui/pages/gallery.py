"""Gallery: a project's pictures where people look, found by filters, each with where it came from and what was said."""

from __future__ import annotations

from typing import Any

import gradio as gr

from storage.errors import InvalidInputError, NotFoundError
from storage.gallery import COUNT_LIMIT, GalleryFilter, PictureDetails
from storage.gallery_sql import AGREEMENTS, ORDERS, STATES
from storage.records import SUBSTANTIVE_ANSWERS, Project
from ui.pages.frame import (
    RESEARCHER,
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

PAGE_SIZE = 48
ANY = ""
ALL_MODELS = "all"


def build_gallery(shell: Shell) -> None:
    """The page for those who look at the pictures and what was said of them."""
    build_header(shell, "gallery")
    with gr.Column(elem_id="main"):
        build_title("Gallery", "Every picture of a project, with where it came from and what people said of it.")
        with gr.Row(equal_height=True):
            project = build_project_choice()
            prompt = gr.Textbox(label="Prompt contains", max_length=2000)
            order = gr.Dropdown(list(ORDERS), value="newest", label="Order", filterable=False)
        filters = [prompt, order, *_build_filters()]
        with gr.Row(elem_classes="pager"):
            back = gr.Button("Back", size="sm", min_width=60, scale=0)
            counted = build_html("", "counted")
            page = gr.Number(1, label="Page", container=False, precision=0, minimum=1, min_width=70, scale=0)
            forth = gr.Button("Next", size="sm", min_width=60, scale=0)
            uncovers = gr.Checkbox(label="Uncover the pictures", visible=False, min_width=180)
        notice = build_notice()
        board = build_html("", "board-place")
        _build_details(shell, project, board, uncovers)
    _connect(shell, project, filters, (back, page, forth), (board, counted, page, uncovers), notice)


def _build_filters() -> list[Any]:
    with gr.Accordion("More filters", open=False), gr.Row(equal_height=True):
        seed = gr.Textbox(label="Seed", max_length=20, min_width=120)
        model = gr.Dropdown([ALL_MODELS], value=ALL_MODELS, label="Model", allow_custom_value=True, min_width=160)
        state = gr.Dropdown([("any", ANY), *((name, name) for name in STATES)], value=ANY, label="State", min_width=140)
        agreement = gr.Dropdown(
            [("any", ANY), *((name, name) for name in AGREEMENTS)], value=ANY, label="Agreement", min_width=140
        )
        low = gr.Textbox(label="Concept score from", placeholder="0", max_length=6, min_width=140)
        high = gr.Textbox(label="Concept score to", placeholder="1", max_length=6, min_width=140)
    return [seed, model, state, agreement, low, high]


def _connect(
    shell: Shell,
    project: gr.Dropdown,
    filters: list[Any],
    pager: tuple[gr.Button, gr.Number, gr.Button],
    shown: tuple[gr.HTML, gr.HTML, gr.Number, gr.Checkbox],
    notice: gr.HTML,
) -> None:
    back, page, forth = pager
    model, uncovers = filters[3], shown[3]
    query, outputs = [project, *filters, uncovers], list(shown)
    for trigger in (*(item.change for item in filters), uncovers.change):
        shell.on(trigger, show_first_page, REVIEWER, query, outputs, notice, trigger_mode="always_last")
    shell.on(project.change, open_project, REVIEWER, [project], [uncovers, model, *outputs[:3]], notice)
    shell.on(page.submit, show_page, REVIEWER, [page, *query], outputs, notice)
    shell.on(back.click, show_page_before, REVIEWER, [page, *query], outputs, notice)
    shell.on(forth.click, show_page_after, REVIEWER, [page, *query], outputs, notice)
    on_load(shell, open_gallery, REVIEWER, [project])


def open_gallery(visit: Visit) -> Any:
    """The project choices; what the address names is chosen."""
    names, chosen = project_choices(visit)
    return gr.update(choices=names, value=chosen or None)


def open_project(visit: Visit, name: str) -> tuple[Any, ...]:
    """Another project: its models to choose from, its newest pictures, covered if it is sensitive."""
    if not name:
        empty = fill("nothing.html", sentence="There is no project yet. Set one up first.")
        return gr.update(visible=False), gr.update(choices=[ALL_MODELS], value=ALL_MODELS), empty, "", 1
    project = visit.store.get_project(name)
    visit.store.refresh_concept_scores(project.name)
    models = gr.update(choices=[ALL_MODELS, *visit.store.list_models(name)], value=ALL_MODELS)
    uncovers = gr.update(visible=project.is_sensitive, value=False)
    return (uncovers, models, *show_page(visit, 1, name)[:3])


def show_first_page(visit: Visit, name: str, *query: Any) -> tuple[Any, ...]:
    """The first page of what the filters find."""
    return show_page(visit, 1, name, *query)


def show_page_before(visit: Visit, page: float, name: str, *query: Any) -> tuple[Any, ...]:
    """The page before."""
    return show_page(visit, max((page or 1) - 1, 1), name, *query)


def show_page_after(visit: Visit, page: float, name: str, *query: Any) -> tuple[Any, ...]:
    """The page after."""
    return show_page(visit, (page or 1) + 1, name, *query)


def show_page(
    visit: Visit,
    page: float | None,
    name: str,
    prompt: str = "",
    order: str = "newest",
    seed: str = "",
    model: str = ALL_MODELS,
    state: str = ANY,
    agreement: str = ANY,
    low: str = "",
    high: str = "",
    uncovers: bool = False,
) -> tuple[str, str, int, Any]:
    """One page of the pictures that the filters find, their number, the page's number, and the cover's switch."""
    project = visit.store.get_project(name)
    wanted = GalleryFilter(
        prompt=prompt or "",
        seed=_parse_seed(seed),
        model_id=None if model in (ALL_MODELS, None) else model,
        state=state or "",
        agreement=agreement or "",
        score_low=_parse_score(low),
        score_high=_parse_score(high),
        order=order or "newest",
    )
    found = visit.store.list_pictures(name, wanted, max(1, int(page or 1)), PAGE_SIZE)
    if not found.pictures and found.page > 1:
        found = visit.store.list_pictures(name, wanted, min(found.n_pages, found.page), PAGE_SIZE)
    is_covered = project.is_sensitive and not uncovers
    board = fill("gallery_board.html", pictures=found.pictures, is_covered=is_covered, kind=project.kind)
    counted = fill("gallery_counted.html", found=found, limit=COUNT_LIMIT)
    return board, counted, found.page, gr.update(visible=project.is_sensitive)


def _parse_seed(text: str) -> int | None:
    text = (text or "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise InvalidInputError(f"The seed {text!r} is not a whole number. Type digits alone, or leave it empty.")
    return int(text)


def _parse_score(text: str) -> float | None:
    text = (text or "").strip().replace(",", ".")
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidInputError(
            f"The concept score {text!r} is not a number from 0 to 1. Type one, or nothing."
        ) from None


# --- one picture -------------------------------------------------------------------------------------------------


def _build_details(shell: Shell, project: gr.Dropdown, board: gr.HTML, uncovers: gr.Checkbox) -> None:
    with gr.Column(visible=False, elem_classes="details") as panel:
        details = build_html("")
        sha256 = gr.Textbox(visible="hidden")
        with gr.Accordion("Make it an item of known answer", open=False, visible=False) as gold_panel:
            build_html(fill("gold_help.html"))
            with gr.Row():
                answer = gr.Dropdown([], label="The right answer", allow_custom_value=True)
                is_training = gr.Checkbox(label="Use it in the training round (else as a hidden check)")
            explanation = gr.Textbox(label="Why", info="Shown after the answer in the training round.", lines=2)
            make = gr.Button("Make it known", elem_classes="narrow")
        notice = build_notice()
    outputs = [panel, details, sha256, gold_panel, answer]
    shell.on_select(board, show_details, REVIEWER, inputs=[project, uncovers], outputs=outputs)
    inputs = [project, sha256, answer, explanation, is_training]
    shell.on(make.click, add_gold, RESEARCHER, inputs, [details], notice)


def show_details(visit: Visit, choice: str, name: str, uncovers: bool = False) -> tuple[Any, ...]:
    """Everything known about the picture that was clicked."""
    sha256 = choice.partition("|")[0]
    found, project = visit.store.get_picture(name, sha256), visit.store.get_project(name)
    may_make_gold = visit.may(RESEARCHER) and found.item is not None and not found.item.is_gold
    answers = sorted(SUBSTANTIVE_ANSWERS[project.kind] - {"scored", "ranked"})
    return (
        gr.update(visible=True),
        _details_html(visit, found, project, bool(uncovers)),
        sha256,
        gr.update(visible=may_make_gold and bool(answers)),
        gr.update(choices=answers, value=None),
    )


def _details_html(visit: Visit, found: PictureDetails, project: Project, uncovers: bool) -> str:
    gold = visit.store.get_gold(found.item.id) if found.item is not None and visit.may(RESEARCHER) else None
    is_covered = project.is_sensitive and not uncovers
    return fill("gallery_details.html", found=found, project=project, gold=gold, is_covered=is_covered)


def add_gold(visit: Visit, name: str, sha256: str, answer: str, explanation: str, is_training: bool) -> Said:
    """Make the picture's item one of known answer."""
    found, project = visit.store.get_picture(name, sha256), visit.store.get_project(name)
    if found.item is None:
        raise NotFoundError("This picture is not up for judging. Choose one that is.")
    visit.store.add_gold(name, found.item.id, answer or "", explanation or "", is_training=bool(is_training))
    use = "the training round" if is_training else "hidden checks"
    details = _details_html(visit, visit.store.get_picture(name, sha256), project, False)
    return Said([details], f"Item {found.item.id} is used for {use} from now on.")
