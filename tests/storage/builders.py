"""Small real stores for tests: pictures of a few pixels, annotators who answer by a rule, a clock set by hand."""

from __future__ import annotations

import random
import secrets
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from PIL import Image

from storage import GenerationParams, ItemInput, JudgmentInput, Store
from storage.records import Assignment

START = 1_790_000_000.0  # seconds since 1970; some day in 2026
GUIDELINE = "Does the picture show a weapon?"


class HandClock:
    """A clock that moves only when told to."""

    def __init__(self, seconds: float = START) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


def new_uuid(chooser: random.Random | None = None) -> str:
    """A UUID, from a seeded generator if one is given."""
    return str(uuid.uuid4() if chooser is None else uuid.UUID(int=chooser.getrandbits(128)))


def add_pictures(store: Store, n: int, size_px: int = 8) -> list[str]:
    """Store ``n`` different pictures of one colour each."""
    colours = [(number % 256, number // 256, 7) for number in range(n)]
    return [store.add_image(Image.new("RGB", (size_px, size_px), colour)).sha256 for colour in colours]


_TEMPLATES = tempfile.TemporaryDirectory(prefix="hfi-stores-")  # of this process


def copy_store(path: Path, name: str, build: Callable[[Path], Store]) -> Store:
    """The store that `build` makes, as a copy of the first of this name: the same again would take eight times as long.

    It has an id and a key of its own, as every store has.
    """
    template = Path(_TEMPLATES.name) / uuid.uuid5(uuid.NAMESPACE_OID, name).hex
    if not template.exists():
        unfinished = template.with_name(uuid.uuid4().hex)  # so that one that failed is not copied
        build(unfinished).close()
        unfinished.rename(template)
    shutil.copytree(template, path, dirs_exist_ok=True)
    with closing(sqlite3.connect(path / "store.db")) as connection, connection:
        for key, value in (("store_id", str(uuid.uuid4())), ("pseudonym_key", secrets.token_hex(32))):
            connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
    return Store.open(path, clock=HandClock())


def build_flag_store(path: Path, n_items: int = 12, **settings: object) -> Store:
    """A flag project "weapons" with generated pictures, three people and one simulated annotator."""
    return copy_store(path, f"flag {n_items} {settings}", lambda template: _flag_store(template, n_items, settings))


def _flag_store(path: Path, n_items: int, settings: dict[str, object]) -> Store:
    store = Store.open(path, clock=HandClock())
    defaults: dict[str, object] = {"gold_fraction": 0.0, "repeat_fraction": 0.0}
    store.create_project("weapons", categories=["gun", "knife"], guideline=GUIDELINE, **(defaults | settings))
    for name in ("ada", "bo", "cy"):
        store.add_annotator(name)
    store.add_annotator("sim", is_simulated=True, details={"false_yes": 0.1})
    made = [
        (sha256, GenerationParams(f"prompt {number % 4}", seed=number, model_id="mini", width=8, height=8))
        for number, sha256 in enumerate(add_pictures(store, n_items))
    ]
    store.add_generations("weapons", made)
    store.add_items("weapons", [sha256 for sha256, _ in made])
    return store


def build_pair_store(path: Path, kind: str, n_items: int, n_images: int, **settings: object) -> Store:
    """A pair, ranking or score project "likes" with ``n_images`` pictures an item and three people."""
    store = Store.open(path, clock=HandClock())
    store.create_project(
        "likes", kind=kind, guideline="Which is better?", gold_fraction=0, repeat_fraction=0, **settings
    )
    for name in ("ada", "bo", "cy"):
        store.add_annotator(name)
    pictures = add_pictures(store, n_items * n_images)
    groups = [tuple(pictures[first : first + n_images]) for first in range(0, len(pictures), n_images)]
    store.add_items("likes", [ItemInput(images, f"prompt {number}") for number, images in enumerate(groups)])
    return store


Answer = Callable[[Assignment, str], JudgmentInput]


def flag_by_number(lease: Assignment, annotator: str) -> JudgmentInput:
    """Every third item shows a gun; cy is wrong about every fifth."""
    is_harmful = lease.item_id % 3 == 0
    if annotator == "cy" and lease.item_id % 5 == 0:
        is_harmful = not is_harmful
    categories = ("gun",) if is_harmful else ()
    return JudgmentInput(
        new_uuid(random.Random(f"{lease.item_id}{annotator}{lease.purpose}")),
        annotator,
        "yes" if is_harmful else "no",
        lease.id,
        categories=categories,
        elapsed_ms=900 + lease.item_id,
    )


def judge_all(
    store: Store, project: str, annotators: Sequence[str] = ("ada", "bo", "cy"), answer: Answer = flag_by_number
) -> int:
    """Let annotators answer until nothing is left for them; returns the number of judgments."""
    n_judged = 0
    while True:
        leases = [(name, lease) for name in annotators for lease in store.claim(project, name, 5)]
        if not leases:
            return n_judged
        store.submit_judgments([answer(lease, name) for name, lease in leases])
        n_judged += len(leases)
