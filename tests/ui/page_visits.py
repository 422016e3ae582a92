"""What the functions of the pages are called with: a real store, a person, and how words in HTML are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from storage import GenerationParams, Store
from storage.errors import HFIError
from tests.storage.builders import add_pictures, flag_by_number, judge_all
from tests.ui.people import PEOPLE, build_store
from ui.context import Context
from ui.pages.frame import Said, Visit
from ui.settings import UiSettings

SCRIPT = "<script>window.hit=1</script><img src=x onerror=window.hit=1>"


def build_visited_store(path: Path, n_items: int = 12, **settings: object) -> Store:
    """The flag project "weapons" with one person of each role, and how its pictures were made."""
    store = build_store(path, n_items, **settings)
    pictures = add_pictures(store, n_items)
    made = [(sha256, GenerationParams(f"prompt {i % 4}", seed=i, model_id="mini")) for i, sha256 in enumerate(pictures)]
    store.add_generations("weapons", made)
    return store


def judge(store: Store, annotators: tuple[str, ...] = ("ann", "cy")) -> None:
    """Let people judge everything one after the other; cy is wrong about every fifth."""
    known = {user.name for user in store.list_users()}
    for name in annotators:
        if name not in known:
            store.add_annotator(name)
        judge_all(store, "weapons", (name,), flag_by_number)


def visit(store: Store, role: str = "owner", settings: UiSettings | None = None, **query: str) -> Visit:
    """A call of a person with this role."""
    return Visit(Context(store, settings or UiSettings()), store.get_annotator(PEOPLE[role]), query)


def sentence(said: Any) -> str:
    """What a function said of what it did."""
    assert isinstance(said, Said), f"it said nothing: {said!r}"
    return said.sentence


def refusal(function: Any, *values: Any) -> str:
    """The sentence with which a function refuses."""
    try:
        found = function(*values)
    except HFIError as error:
        return str(error)
    raise AssertionError(f"{function.__name__} did not refuse, it gave {found!r}")
