"""Pictures page by page: every filter, order and count, on a real store judged by three people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage import JudgmentInput, Store
from storage.errors import InvalidInputError, NotFoundError
from storage.gallery import GalleryFilter
from tests.storage.builders import START, HandClock, add_pictures, build_flag_store, judge_all, new_uuid


def hashes(store: Store, **wanted: object) -> list[str]:
    page = store.list_pictures("weapons", GalleryFilter(**wanted))  # type: ignore[arg-type]
    assert page.n_found == len(page.pictures)
    return [picture.sha256 for picture in page.pictures]


def test_list_pictures_gives_every_picture_once_newest_first(store: Store) -> None:
    made = [record.image_sha256 for record in store.list_generations("weapons")]
    assert hashes(store) == made[::-1]
    assert hashes(store, order="oldest") == made


def test_list_pictures_pages_without_gap_or_overlap(store: Store) -> None:
    pages = [store.list_pictures("weapons", page=number, page_size=5) for number in (1, 2, 3, 4)]
    assert [len(page.pictures) for page in pages] == [5, 5, 2, 0]
    assert {page.n_found for page in pages} == {12} and pages[0].n_pages == 3
    assert len({picture.sha256 for page in pages for picture in page.pictures}) == 12


def test_list_pictures_filters_by_prompt_seed_and_model(store: Store) -> None:
    assert len(hashes(store, prompt="PROMPT 3")) == 3
    assert hashes(store, prompt="prompt_3") == []  # an underscore is an underscore
    assert hashes(store, prompt="%") == []
    [found] = store.list_pictures("weapons", GalleryFilter(seed=7)).pictures
    assert (found.seed, found.prompt, found.model_id) == (7, "prompt 3", "mini")
    assert len(hashes(store, model_id="mini")) == 12 and hashes(store, model_id="other") == []
    assert store.list_models("weapons") == ["mini"]


def test_list_pictures_filters_by_state_and_agreement(judged: Store) -> None:
    by_state = {state: len(hashes(judged, state=state)) for state in ("open", "done", "adjudicate", "hidden")}
    assert sum(by_state.values()) == 12 and by_state["hidden"] == 0
    disputed = judged.list_pictures("weapons", GalleryFilter(agreement="disputed")).pictures
    assert disputed and all(picture.n_positive and picture.n_negative for picture in disputed)
    assert len(hashes(judged, agreement="agreed")) == 12 - len(disputed)
    assert hashes(judged, agreement="not judged") == []


def test_list_pictures_shows_what_is_not_queued_and_hides_what_is_quarantined(judged: Store) -> None:
    [stray] = add_pictures(judged, 13)[12:]
    assert stray not in hashes(judged)  # in the store, but in no project
    judged.quarantine_image(hashes(judged)[0], "reported")
    assert len(hashes(judged)) == 11
    [hidden] = judged.list_pictures("weapons", GalleryFilter(state="hidden")).pictures
    assert hidden.is_quarantined and hidden.status == "hidden"
    assert hashes(judged, state="not queued") == []


def test_list_pictures_keeps_projects_apart(judged: Store) -> None:
    judged.create_project("other")
    [picture, *_] = hashes(judged)
    judged.add_items("other", [picture])
    [found] = judged.list_pictures("other").pictures
    assert (found.sha256, found.n_judgments, found.seed) == (picture, 0, None)
    assert judged.get_picture("other", picture).judgments == ()
    assert len(judged.get_picture("weapons", picture).judgments) >= 3


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ({"state": "gone"}, "state"),
        ({"agreement": "nice"}, "agreement"),
        ({"order": "size"}, "order"),
        ({"seed": -1}, "seed"),
        ({"score_low": 2.0}, "concept score"),
        ({"score_low": 0.8, "score_high": 0.2}, "concept score"),
    ],
)
def test_list_pictures_names_the_filter_it_refuses(store: Store, wanted: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        hashes(store, **wanted)


def add_score_run(store: Store, scores: dict[str, tuple[float, float]]) -> str:
    run = store.start_run("score", {"project": "weapons", "n": len(scores)})
    with store.writing_artifact(run.id, "score-model", "score_model") as folder:
        (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    store.finish_run(run.id)
    return run.id


def test_concept_scores_are_those_of_the_newest_run(store: Store) -> None:
    everything = hashes(store)
    assert store.refresh_concept_scores("weapons") == 0
    add_score_run(store, dict.fromkeys(everything, (0.9, 0.0)))
    add_score_run(store, {sha256: (place / 10, 0.05) for place, sha256 in enumerate(everything[:10])})
    assert store.refresh_concept_scores("weapons") == 10
    assert store.refresh_concept_scores("weapons") == 0  # there already
    assert hashes(store, order="highest score") == everything[:10][::-1]
    assert hashes(store, score_low=0.75, order="lowest score") == everything[8:10]
    assert store.get_picture("weapons", everything[3]).picture.concept_score == 0.3
    assert store.get_picture("weapons", everything[11]).picture.concept_score is None


def test_get_picture_refuses_a_picture_of_another_project(store: Store) -> None:
    store.create_project("empty")
    with pytest.raises(NotFoundError, match="another project"):
        store.get_picture("empty", hashes(store)[0])


def test_list_disputed_ends_when_a_reviewer_decides(judged: Store) -> None:
    before = judged.list_disputed("weapons")
    assert before and all(item.status == "adjudicate" or not item.is_gold for item in before)
    judged.add_annotator("rev", role="reviewer")
    judged.submit_judgments([JudgmentInput(new_uuid(), "rev", "yes", item_id=before[0].id)])
    assert [item.id for item in judged.list_disputed("weapons")] == [item.id for item in before[1:]]


def test_list_days_counts_each_annotators_days(tmp_path: Path) -> None:
    with build_flag_store(tmp_path / "store", n_items=6) as store:
        clock = store.clock
        assert isinstance(clock, HandClock)
        judge_all(store, "weapons", ("ada",))
        clock.seconds += 86_400
        judge_all(store, "weapons", ("bo",))
        days = store.list_days("weapons")
        assert [(row.day, row.annotator, row.n_judgments) for row in days] == [
            (int(START // 86_400), "ada", 6),
            (int(START // 86_400) + 1, "bo", 6),
        ]
        assert (days[0].n_positive, days[0].gold_seen, days[0].n_too_fast) == (2, 0, 0)
        assert store.list_projects_of("ada") == ["weapons"] and store.list_projects_of("cy") == []
        assert store.newest_judgment("weapons") == 12
