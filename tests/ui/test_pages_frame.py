"""How functions are tied to events: who may call, how refusals are told, and that nothing typed becomes HTML."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from storage import Store
from storage.errors import InvalidInputError
from tests.ui.page_visits import SCRIPT, build_visited_store
from ui.access import least_role_of_function
from ui.context import Context, NotAllowedError
from ui.pages import build_pages
from ui.pages.frame import PAGES, RESEARCHER, Said, Shell, Visit, fill, format_share, notice_html
from ui.settings import UiSettings

REQUEST = SimpleNamespace(query_params={"project": "weapons"}, cookies={}, headers={})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with build_visited_store(tmp_path_factory.mktemp("frame")) as opened:
        yield opened


def in_loop(build: Callable[[], gr.Blocks]) -> gr.Blocks:
    """Build pages while an event loop runs: without one Gradio makes two and never closes them."""

    async def build_now() -> gr.Blocks:
        return build()

    # In a thread of its own: playwright leaves a loop running in this one when the browser tests went before.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(lambda: asyncio.run(build_now())).result()


class Door:
    """A context that lets one person in, or nobody, and notes which role was asked for."""

    def __init__(self, store: Store, name: str = "") -> None:
        self.store, self.settings, self.name, self.asked = store, UiSettings(), name, list[str]()

    def require(self, request: Any, role: str) -> Any:
        self.asked.append(role)
        if not self.name:
            raise NotAllowedError("This takes a role you have not.")
        return self.store.get_annotator(self.name)


@pytest.fixture(scope="module")
def blocks(store: Store) -> gr.Blocks:
    return in_loop(lambda: build_pages(Door(store)))


def call_by_nobody(function: Any) -> Any:
    """What a function gives to somebody who may not call it: refusals beside the fields, or in the corner."""
    try:
        return function.fn(REQUEST, *[None for _ in function.inputs])
    except gr.Error as error:
        return error.message


def test_every_function_asks_who_calls_before_anything_else(blocks: gr.Blocks) -> None:
    functions = [function for function in blocks.fns.values() if function.fn is not None]
    assert len(functions) > 40
    for function in functions:
        found = call_by_nobody(function)
        told = found if isinstance(found, tuple) else (found,)
        assert all(value == {"__type__": "update"} or "This takes a role" in str(value) for value in told), function


def test_every_function_is_in_the_table_of_roles_with_the_role_it_asks_for(store: Store) -> None:
    door = Door(store)
    for function in in_loop(lambda: build_pages(door)).fns.values():
        if function.fn is None:
            continue
        door.asked.clear()
        call_by_nobody(function)
        assert door.asked == [least_role_of_function(function.fn)], function.fn.__name__


def test_no_function_is_offered_to_programs(blocks: gr.Blocks) -> None:
    offered = [fn.api_name for fn in blocks.fns.values() if fn.fn is not None and fn.api_visibility != "private"]
    assert offered == []


def test_every_page_of_the_navigation_is_there(blocks: gr.Blocks) -> None:
    assert {page[0] for page in blocks.pages} == {path for path, _, _ in PAGES}


def tied(store: Store, function: Any, n_outputs: int) -> Any:
    """A function as it is tied to a button with a place for what came of it."""
    door = Door(store, "boss")

    def build() -> gr.Blocks:
        with gr.Blocks() as page:
            button, outputs, notice = gr.Button("Go"), [gr.Textbox() for _ in range(n_outputs)], gr.HTML()
            Shell(door, "projects").on(button.click, function, RESEARCHER, [], outputs, notice)
        return page

    [tied_function] = [fn.fn for fn in in_loop(build).fns.values() if fn.fn is not None]
    return tied_function


def test_each_output_gets_an_update_of_its_own(store: Store) -> None:
    """Gradio takes updates apart while it reads them: a shared one would be gone for the second output."""
    shared = gr.update(value=1)
    first, second, _ = tied(store, lambda visit: (shared, shared), 2)(REQUEST)
    assert first == second and first is not second


def test_a_refusal_leaves_the_fields_and_stands_beside_them(store: Store) -> None:
    def refuse(visit: Visit) -> None:
        raise InvalidInputError(f"The name {SCRIPT!r} is not allowed.")

    first, second, notice = tied(store, refuse, 2)(REQUEST)
    assert first == second == {"__type__": "update"}
    assert 'role="alert"' in notice and "&lt;script&gt;" in notice and "<script" not in notice and "<img" not in notice


def test_a_refusal_without_a_place_is_shown_in_the_corner_as_text(store: Store) -> None:
    def refuse(visit: Visit) -> None:
        raise InvalidInputError(SCRIPT)

    def build() -> gr.Blocks:
        with gr.Blocks() as page:
            button, output = gr.Button("Go"), gr.Textbox()
            Shell(Door(store, "boss"), "projects").on(button.click, refuse, RESEARCHER, [], [output])
        return page

    [function] = [fn for fn in in_loop(build).fns.values() if fn.fn is not None]
    assert "&lt;script&gt;" in call_by_nobody(function) and "<img" not in call_by_nobody(function)


def test_a_sentence_is_told_politely(store: Store) -> None:
    value, notice = tied(store, lambda visit: Said(["new"], "Saved."), 1)(REQUEST)
    assert value == "new" and 'role="status"' in notice and "Saved." in notice


def test_what_is_no_refusal_is_not_swallowed(store: Store) -> None:
    def break_down(visit: Visit) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tied(store, break_down, 1)(REQUEST)


def test_the_number_of_values_must_fit(store: Store) -> None:
    with pytest.raises(TypeError, match="1 values for 2"):
        tied(store, lambda visit: "one", 2)(REQUEST)


def test_a_visit_knows_the_address_and_the_role(store: Store) -> None:
    seen: list[Visit] = []
    tied(store, lambda visit: seen.append(visit) or "x", 1)(REQUEST)
    assert seen[0].query == {"project": "weapons"} and seen[0].may("owner")
    annotator = Visit(Context(store, UiSettings()), store.get_annotator("ann"))
    assert annotator.may("annotator") and not annotator.may("reviewer")


def test_templates_escape_and_refuse_what_is_missing() -> None:
    assert "<script" not in notice_html(SCRIPT, "bad")
    with pytest.raises(Exception, match="undefined"):
        fill("notice.html")


def test_format_share_of_nothing_is_a_dash() -> None:
    assert (format_share(1, 4), format_share(0, 0)) == ("25 %", "–")


def test_no_template_marks_anything_as_safe() -> None:
    folder = Path(__file__).parents[2] / "ui" / "templates" / "shell"
    texts = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.html")}
    assert texts and [name for name, text in texts.items() if "safe" in text or "autoescape" in text] == []
