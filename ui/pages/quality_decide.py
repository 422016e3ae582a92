"""The part of quality where a reviewer sees what annotators disagree about, and decides."""

from __future__ import annotations

import uuid
from typing import Any

import gradio as gr

from storage.errors import InvalidInputError
from storage.records import ItemRecord, JudgmentInput, JudgmentRecord, Project
from ui.pages.frame import REVIEWER, Said, Shell, Visit, build_html, build_notice, fill

N_DISPUTES = 24
ANSWERS = {
    "flag": [("It shows it", "yes"), ("It does not", "no")],
    "score": [(str(score), str(score)) for score in range(1, 6)],
    "pair": [
        ("The first is better", "first"),
        ("The second is better", "second"),
        ("Equally good", "tie"),
        ("Both are fine", "both_fine"),
        ("Both are bad", "both_bad"),
    ],
    "ranking": [("This order", "ranked"), ("None of them", "none")],
}


def build_disputes(shell: Shell, project: gr.Dropdown) -> None:
    """What is disputed as a board; the one that was clicked below it, with the answers to choose from."""
    board = build_html("", "board-place")
    with gr.Column(visible=False, elem_classes="details") as panel:
        item = build_html("")
        item_id = gr.Number(visible="hidden", precision=0)
        answer = gr.Radio([], label="Your decision")
        categories = gr.CheckboxGroup([], label="It shows", visible=False)
        ranks = gr.Textbox(
            label="Order", info="The pictures' numbers, best first, for instance 2 1 3.", visible=False, max_length=40
        )
        note = gr.Textbox(label="Note", info="May stay empty.", max_length=2000)
        button = gr.Button("Decide", variant="primary", elem_classes="narrow")
    notice = build_notice()
    form = [panel, item, item_id, answer, categories, ranks, note]
    shell.on(project.change, show_disputes, REVIEWER, [project], [board, panel])
    shell.on_select(board, show_dispute, REVIEWER, inputs=[project], outputs=form)
    inputs = [project, item_id, answer, categories, ranks, note]
    shell.on(button.click, decide, REVIEWER, inputs, [board, *form], notice)


def show_disputes(visit: Visit, name: str) -> tuple[str, Any]:
    """The board of a project."""
    return (_board_html(visit, name) if name else ""), gr.update(visible=False)


def _board_html(visit: Visit, name: str) -> str:
    project = visit.store.get_project(name)
    disputes = [
        {"item": item, "said": summarise(visit.store.list_item_judgments(item))}
        for item in visit.store.list_disputed(name, N_DISPUTES)
    ]
    return fill("disputes.html", disputes=disputes, project=project, n_most=N_DISPUTES)


def summarise(judgments: list[JudgmentRecord]) -> str:
    """How often each answer was given: ``2 yes, 1 no``."""
    counts: dict[str, int] = {}
    for judgment in judgments:
        if judgment.purpose not in ("repeat", "training"):
            word = str(judgment.score) if judgment.score is not None else judgment.answer
            counts[word] = counts.get(word, 0) + 1
    return ", ".join(f"{count} {word}" for word, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def show_dispute(visit: Visit, choice: str, name: str) -> tuple[Any, ...]:
    """The item that was clicked, and the answers its kind has."""
    item = visit.store.get_item(int(choice.partition("|")[0] or 0))
    return _form(visit, visit.store.get_project(name), item)


def _form(visit: Visit, project: Project, item: ItemRecord) -> tuple[Any, ...]:
    _check_item(project, item)
    judgments = visit.store.list_item_judgments(item)
    is_flag = project.kind == "flag"
    return (
        gr.update(visible=True),
        fill("dispute.html", item=item, project=project, judgments=judgments),
        item.id,
        gr.update(choices=ANSWERS[project.kind], value=None),
        gr.update(choices=list(project.categories), value=[], visible=is_flag and bool(project.categories)),
        gr.update(value="", visible=project.kind == "ranking"),
        "",
    )


def _check_item(project: Project, item: ItemRecord) -> None:
    if item.project_id != project.id:
        raise InvalidInputError(f"Item {item.id} is not in project {project.name!r}. Choose one that is shown.")


def decide(
    visit: Visit, name: str, item_id: float | None, answer: str, categories: list[str], ranks: str, note: str
) -> Said:
    """Write the reviewer's judgment, which settles the item; the form is closed."""
    project = visit.store.get_project(name)
    if not item_id:
        raise InvalidInputError("No item is chosen. Click one above.")
    item = visit.store.get_item(int(item_id))
    _check_item(project, item)
    fields = read_answer(item, answer, categories, ranks)
    judgment = JudgmentInput(str(uuid.uuid4()), visit.user.name, item_id=item.id, note=note or "", **fields)
    visit.store.submit_judgments([judgment])
    closed = (gr.update(visible=False), "", None, None, gr.update(), "", "")
    return Said([_board_html(visit, name), *closed], f"Item {item.id} is decided.")


def read_answer(item: ItemRecord, answer: str | None, categories: list[str] | None, ranks: str) -> dict[str, Any]:
    """What was chosen, as the fields of a judgment.

    Raises:
        InvalidInputError: nothing was chosen, or the order is not one of the item's pictures.
    """
    if answer not in [word for _, word in ANSWERS[item.kind]]:
        raise InvalidInputError("No decision is chosen. Choose one of the answers.")
    if item.kind == "score":
        return {"answer": "scored", "score": int(answer)}
    if item.kind == "ranking" and answer == "ranked":
        return {"answer": answer, "ranks": _read_order(ranks, len(item.images))}
    return {"answer": answer, "categories": tuple(categories or ()) if answer == "yes" else ()}


def _read_order(text: str, n_images: int) -> tuple[int, ...]:
    """``2 1 3``: the second picture is best. Gives the rank of each picture in the item's own order."""
    words = (text or "").replace(",", " ").split()
    order = [int(word) for word in words if word.isdecimal()]
    if sorted(order) != list(range(1, n_images + 1)):
        raise InvalidInputError(
            f"The order {text!r} is not an order of the {n_images} pictures. Name each number from 1 to {n_images} "
            "once, best first."
        )
    return tuple(order.index(number) + 1 for number in range(1, n_images + 1))
