"""Quality: the figures, deciding what is disputed for each kind, withdrawing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import ItemInput, JudgmentInput, Store
from storage.gallery import DayCount
from storage.snapshot import create_snapshot, list_snapshots
from tests.storage.builders import add_pictures, new_uuid
from tests.ui.page_visits import SCRIPT, build_visited_store, judge, refusal, sentence, visit
from ui.pages.quality import (
    N_DAYS,
    measure,
    open_quality,
    show_quality,
    tabulate_days,
    tabulate_drift,
    withdraw,
)
from ui.pages.quality_decide import decide, show_dispute, show_disputes, summarise


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with build_visited_store(tmp_path / "store") as opened:
        judge(opened)
        yield opened


def test_quality_shows_figures_people_and_days(store: Store) -> None:
    overview, people, days, annotators = show_quality(visit(store), "weapons")
    assert "24" in overview and "Krippendorff" in overview and "gun" in overview
    assert "Confusion" in people and "ann" in people and "0 of 0" in people
    assert "2026-" not in days and "yes" in days
    assert annotators["choices"] == ["ann", "cy"]


def test_quality_of_an_unjudged_project_says_so(tmp_path: Path) -> None:
    with build_visited_store(tmp_path / "store") as unjudged:
        overview, people, days, _ = show_quality(visit(unjudged), "weapons")
        assert all("Nobody has judged yet" in page for page in (overview, people, days))
        assert "Set one up first" in show_quality(visit(unjudged), "")[0]


def test_withdrawing_is_offered_to_owners_alone(store: Store) -> None:
    assert open_quality(visit(store, "owner"))[1]["visible"]
    assert not open_quality(visit(store, "researcher"))[1]["visible"]


def test_figures_are_measured_again_only_when_somebody_has_judged(store: Store) -> None:
    first = measure(store, "weapons")
    assert measure(store, "weapons") is first
    store.submit_judgments([JudgmentInput(new_uuid(), "rev", "yes", item_id=1)])
    assert measure(store, "weapons")["n_judgments"] == first["n_judgments"] + 1


def count(day: int, annotator: str = "ann", n: int = 4, n_positive: int = 1) -> DayCount:
    return DayCount(day, annotator, False, n, n, n_positive, 2, 1, 0, 0, 0, 1000)


def test_tabulate_days_leaves_no_day_out() -> None:
    rows = tabulate_days([count(100), count(100, "cy", 6), count(103, n=5)])
    assert [(row["n"], row["height"]) for row in rows] == [(10, 100.0), (0, 0.0), (0, 0.0), (5, 50.0)]
    assert rows[0]["day"] == "1970-04-11"
    assert len(tabulate_days([count(1), count(400)])) == N_DAYS and tabulate_days([]) == []


def test_tabulate_drift_has_a_cell_for_each_day_and_person() -> None:
    table = tabulate_drift([count(100), count(102, "cy")])
    assert [row["annotator"] for row in table["rows"]] == ["ann", "cy"]
    assert [[cell is not None for cell in row["cells"]] for row in table["rows"]] == [[True, False], [False, True]]


# --- deciding ----------------------------------------------------------------------------------------------------


def test_a_reviewer_decides_what_is_disputed(store: Store) -> None:
    board, _ = show_disputes(visit(store, "reviewer"), "weapons")
    before = store.list_disputed("weapons")
    assert before and board.count("data-choice") == len(before) and "1 no, 1 yes" in board
    form = show_dispute(visit(store, "reviewer"), f"{before[0].id}|1", "weapons")
    assert form[2] == before[0].id and form[3]["choices"] == [("It shows it", "yes"), ("It does not", "no")]
    assert form[4]["choices"] == ["gun", "knife"] and "ann" in form[1]
    said = decide(visit(store, "reviewer"), "weapons", before[0].id, "yes", ["gun"], "", "clearly")
    assert "decided" in sentence(said) and said.values[0].count("data-choice") == len(before) - 1
    written = store.list_item_judgments(store.get_item(before[0].id))[-1]
    assert (written.annotator, written.answer, written.categories, written.purpose, written.note) == (
        *("rev", "yes", ("gun",), "adjudicate", "clearly"),
    )
    assert store.get_item(before[0].id).status == "done"


def test_deciding_refuses_what_was_not_chosen(store: Store) -> None:
    here = visit(store, "researcher")
    item = store.list_disputed("weapons")[0]
    assert "No item" in refusal(decide, here, "weapons", None, "yes", [], "", "")
    assert "No decision" in refusal(decide, here, "weapons", item.id, None, [], "", "")
    assert "category" in refusal(decide, here, "weapons", item.id, "yes", ["sword"], "", "")
    store.create_project("other")
    assert "not in project" in refusal(decide, here, "other", item.id, "yes", [], "", "")


@pytest.mark.parametrize(
    ("kind", "n_images", "answer", "ranks", "expected"),
    [
        ("score", 1, "4", "", ("scored", 4, ())),
        ("pair", 2, "second", "", ("second", None, ())),
        ("ranking", 3, "ranked", "2, 3 1", ("ranked", None, (3, 1, 2))),
        ("ranking", 3, "none", "", ("none", None, ())),
    ],
)
def test_every_kind_is_decided(
    store: Store, kind: str, n_images: int, answer: str, ranks: str, expected: tuple[object, ...]
) -> None:
    store.create_project("others", kind=kind)
    pictures = add_pictures(store, 40)[40 - n_images :]
    [item] = store.add_items("others", [ItemInput(tuple(pictures))])
    form = show_dispute(visit(store), f"{item.id}|1", "others")
    assert answer in [word for _, word in form[3]["choices"]]
    decide(visit(store), "others", item.id, answer, [], ranks, "")
    [written] = store.list_item_judgments(item)
    assert (written.answer, written.score, written.ranks) == expected
    if kind == "ranking":
        assert "not an order" in refusal(decide, visit(store), "others", item.id, "ranked", [], "1 1 2", "")


def test_nothing_typed_becomes_html(store: Store) -> None:
    store.create_project("odd")
    [item] = store.add_items("odd", [ItemInput((store.list_images()[0].sha256,), SCRIPT)])
    store.submit_judgments([JudgmentInput(new_uuid(), "rev", "yes", item_id=item.id, note=SCRIPT, reason=SCRIPT)])
    shown = show_dispute(visit(store), f"{item.id}|1", "odd")[1] + summarise(store.list_item_judgments(item))
    assert "&lt;script&gt;" in shown and "<script" not in shown and "<img src=x" not in shown


# --- withdrawing -------------------------------------------------------------------------------------------------


def test_withdrawing_makes_a_snapshot_without_the_person(store: Store) -> None:
    before = create_snapshot(store, "weapons")
    said = withdraw(visit(store), "cy", "cy")
    newest = list_snapshots(store, "weapons")[-1]
    assert newest["hash"][:12] in sentence(said) and newest["parent_hash"] == before.hash
    assert (newest["n_annotators"], newest["n_judgments"]) == (1, 12)
    assert store.get_annotator("cy").is_disabled
    assert len(list_snapshots(store, "weapons")) == 2  # the older one stays


def test_withdrawing_takes_the_name_typed(store: Store) -> None:
    assert "type that name" in refusal(withdraw, visit(store), "cy", "Cy")
    assert "no annotator" in refusal(withdraw, visit(store), "", "")
    assert not store.get_annotator("cy").is_disabled


def test_the_only_owner_cannot_be_withdrawn(store: Store) -> None:
    assert "only owner" in refusal(withdraw, visit(store), "boss", "boss")
    assert not store.get_annotator("boss").is_disabled


def test_withdrawing_the_only_annotator_leaves_nothing_to_freeze(tmp_path: Path) -> None:
    with build_visited_store(tmp_path / "store") as single:
        judge(single, ("ann",))
        create_snapshot(single, "weapons")
        assert "No snapshot was made" in sentence(withdraw(visit(single), "ann", "ann"))
        assert len(list_snapshots(single, "weapons")) == 1
