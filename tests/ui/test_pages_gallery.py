"""Gallery: pages of pictures, filters that name what they refuse, a picture's details, covered when sensitive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import GenerationParams, Store
from tests.storage.builders import add_pictures
from tests.ui.page_visits import SCRIPT, build_visited_store, judge, refusal, sentence, visit
from ui.pages.gallery import (
    PAGE_SIZE,
    add_gold,
    open_gallery,
    open_project,
    show_details,
    show_first_page,
    show_page,
    show_page_after,
    show_page_before,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with build_visited_store(tmp_path / "store") as opened:
        yield opened


def test_gallery_opens_on_the_project_of_the_address(store: Store) -> None:
    store.create_project("faces", kind="pair")
    assert open_gallery(visit(store, project="faces"))["value"] == "faces"
    assert open_gallery(visit(store, project="nowhere"))["value"] == "weapons"
    uncovers, models, board, counted, page = open_project(visit(store), "weapons")
    assert not uncovers["visible"] and models["choices"] == ["all", "mini"] and page == 1
    assert board.count("data-choice") == 12 and "1–12" in counted


def test_gallery_pages_forth_and_back(tmp_path: Path) -> None:
    with build_visited_store(tmp_path / "store", n_items=PAGE_SIZE + 5) as many:
        first = show_page(visit(many), 1, "weapons")
        second = show_page_after(visit(many), 1, "weapons")
        assert first[0].count("data-choice") == PAGE_SIZE and second[0].count("data-choice") == 5
        assert f"{PAGE_SIZE + 1}–{PAGE_SIZE + 5}" in second[1] and second[2] == 2
        assert show_page_before(visit(many), 2, "weapons")[:3] == first[:3]
        assert show_page_after(visit(many), 2, "weapons")[:3] == second[:3]  # there is no page beyond the last
        assert show_page(visit(many), None, "weapons")[2] == 1


def test_gallery_filters(store: Store) -> None:
    judge(store)
    board, counted, *_ = show_first_page(visit(store), "weapons", "prompt 3", "oldest", "7")
    assert board.count("data-choice") == 1 and "seed 7" in board and "of 1<" in counted
    disputed = show_first_page(visit(store), "weapons", "", "newest", "", "all", "", "disputed")[0]
    assert "1 yes, 1 no" in disputed and "2 yes" not in disputed
    assert "Take a filter away" in show_first_page(visit(store), "weapons", "no such prompt")[0]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        (("", "newest", "7a"), "seed"),
        (("", "newest", "", "all", "", "", "0.9", "0,1"), "concept score"),
        (("", "newest", "", "all", "", "", "high"), "not a number"),
        (("", "newest", "", "all", "", "", "nan"), "concept score"),
        (("", "newest", "", "all", "gone"), "state"),
        (("x" * 3000,), "characters"),
    ],
)
def test_gallery_names_the_filter_it_refuses(store: Store, query: tuple[object, ...], named: str) -> None:
    assert named in refusal(show_first_page, visit(store), "weapons", *query)


def test_sensitive_pictures_are_covered_until_asked(tmp_path: Path) -> None:
    with build_visited_store(tmp_path / "store", is_sensitive=True) as sensitive:
        covered, _, _, switch = show_page(visit(sensitive), 1, "weapons")
        assert 'class="board covered"' in covered and switch["visible"]
        query = ("", "newest", "", "all", "", "", "", "")
        assert 'class="board covered"' not in show_page(visit(sensitive), 1, "weapons", *query, True)[0]
        sha256 = sensitive.list_pictures("weapons").pictures[0].sha256
        assert 'figure class="covered"' in show_details(visit(sensitive), f"{sha256}|1", "weapons")[1]
        assert 'figure class="covered"' not in show_details(visit(sensitive), f"{sha256}|1", "weapons", True)[1]


def test_details_say_how_it_was_made_and_what_was_said(store: Store) -> None:
    judge(store)
    made = store.list_generations("weapons")[4]
    panel, details, sha256, gold, answers = show_details(visit(store), f"{made.image_sha256}|3", "weapons")
    assert panel["visible"] and sha256 == made.image_sha256 and gold["visible"] and answers["choices"] == ["no", "yes"]
    for word in ("prompt 0", "mini", "DDIMScheduler", "guidance 7.5", made.image_sha256, "ann", "What people said"):
        assert word in details
    assert not show_details(visit(store, "reviewer"), made.image_sha256, "weapons")[3]["visible"]
    assert "no image" in refusal(show_details, visit(store), "0" * 64, "weapons")


def test_nothing_typed_becomes_html(store: Store) -> None:
    [sha256] = add_pictures(store, 20)[19:]
    params = GenerationParams(SCRIPT, seed=1, negative_prompt=SCRIPT, model_id=SCRIPT, guard=SCRIPT, role=SCRIPT)
    store.add_generation("weapons", sha256, params)
    store.add_items("weapons", [sha256])
    shown = show_page(visit(store), 1, "weapons")[0] + show_details(visit(store), sha256, "weapons")[1]
    assert "&lt;script&gt;" in shown and "<script" not in shown and "onerror=window" in shown
    assert "<img src=x" not in shown


def test_add_gold_makes_an_item_of_known_answer(store: Store) -> None:
    sha256 = store.list_pictures("weapons").pictures[0].sha256
    said = add_gold(visit(store, "researcher"), "weapons", sha256, "yes", "The blade.", True)
    assert "training round" in sentence(said) and "The blade." in said.values[0]
    item_id = store.get_picture("weapons", sha256).picture.item_id
    assert item_id is not None and store.get_gold(item_id) == {
        "answer": "yes",
        "categories": [],
        "explanation": "The blade.",
        "is_training": True,
    }
    assert "gold answer" in refusal(add_gold, visit(store), "weapons", sha256, "", "", False)
    assert "details" not in show_details(visit(store), sha256, "weapons")[3]  # is gold: no form to make it so
    assert not show_details(visit(store), sha256, "weapons")[3]["visible"]
