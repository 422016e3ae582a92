"""Snapshots: frozen, hashed, the same for the same judgments; labels of every kind; runs that name them."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from storage import JudgmentInput, Store, config_hash
from storage.errors import ConflictError, InvalidInputError, NotFoundError
from storage.records import Assignment
from storage.snapshot import (
    create_snapshot,
    diff_snapshots,
    iterate_judgments,
    list_snapshots,
    load_snapshot,
    preferences,
    withdraw_annotator,
)
from storage.stats import measure_project
from tests.storage.builders import build_pair_store, judge_all, new_uuid


def test_snapshot_labels_images_as_annotators_see_them(judged: Store) -> None:
    snapshot = create_snapshot(judged, "weapons")
    assert len(snapshot.images) == snapshot.n_items == 12
    assert snapshot.n_judgments == len(snapshot.judgments) == len(judged.list_judgments("weapons"))
    for image in snapshot.images:
        assert image.is_harmful == (image.item_id % 3 == 0)
        assert image.categories == (("gun",) if image.is_harmful else ())
        assert image.seed is not None
        assert judged.load_image(image.sha256).size == (8, 8)


def test_snapshot_of_the_same_judgments_is_the_same(judged: Store) -> None:
    first = create_snapshot(judged, "weapons")
    assert create_snapshot(judged, "weapons") == first == load_snapshot(judged, first.hash[:8])
    assert len(list_snapshots(judged)) == 1
    other = create_snapshot(judged, "weapons", "majority")
    assert other.hash != first.hash
    assert [entry["rule"] for entry in list_snapshots(judged, "weapons")] == ["dawid_skene", "majority"]


def test_snapshot_stays_as_it_was_when_judging_goes_on(judged: Store) -> None:
    before = create_snapshot(judged, "weapons")
    changed = before.judgments[0]
    answer = "no" if changed.answer == "yes" else "yes"
    judged.submit_judgments(
        [JudgmentInput(new_uuid(), changed.annotator, answer, item_id=changed.item_id, supersedes=changed.uuid)]
    )
    after = create_snapshot(judged, "weapons", parent_hash=before.hash)
    assert load_snapshot(judged, before.hash) == before
    found = diff_snapshots(judged, before.hash, after.hash)
    assert (found["judgments_added"], found["judgments_gone"]) == (1, 1)
    assert [row.uuid for row in iterate_judgments(judged, before.hash)] == [row.uuid for row in before.judgments]


def test_withdrawal_makes_a_new_snapshot_without_the_annotator(judged: Store) -> None:
    before = create_snapshot(judged, "weapons", "majority")
    (after,) = withdraw_annotator(judged, "cy")
    assert (after.parent_hash, after.rule) == (before.hash, "majority")
    assert {row.annotator for row in after.judgments} == {"ada", "bo"}
    assert {row.annotator for row in load_snapshot(judged, before.hash).judgments} == {"ada", "bo", "cy"}
    assert withdraw_annotator(judged, "cy") == []
    with pytest.raises(InvalidInputError, match="disabled"):
        judged.claim("weapons", "cy")


def test_withdrawal_of_everyone_leaves_nothing_to_freeze(judged: Store) -> None:
    create_snapshot(judged, "weapons")
    assert [len(withdraw_annotator(judged, name)) for name in ("ada", "bo", "cy")] == [1, 1, 0]
    with pytest.raises(InvalidInputError, match="no judgments to freeze"):
        create_snapshot(judged, "weapons")


def test_snapshot_cannot_be_changed_or_added_to(judged: Store) -> None:
    create_snapshot(judged, "weapons")
    for statement in (
        "UPDATE snapshot SET rule = 'majority'",
        "DELETE FROM snapshot",
        "DELETE FROM snapshot_judgment",
        "UPDATE snapshot_label SET answer = 'no'",
        "INSERT INTO snapshot_judgment VALUES (1, 9999)",
        "INSERT OR REPLACE INTO snapshot_label SELECT * FROM snapshot_label LIMIT 1",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            judged.connection.execute(statement)


def test_snapshot_of_nothing_and_unknown_hashes_are_refused(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="no judgments"):
        create_snapshot(store, "weapons")
    with pytest.raises(InvalidInputError, match="aggregation rule"):
        create_snapshot(store, "weapons", "loudest")
    for name in ("abc", "f" * 64, "", "'; DROP TABLE snapshot"):
        with pytest.raises(NotFoundError, match="no snapshot"):
            load_snapshot(store, name)


def test_gold_labels_come_from_who_knows(judged: Store) -> None:
    item = next(item for item in judged.list_items("weapons") if item.id % 3)
    judged.add_gold("weapons", item.id, "yes", "a hidden gun")
    image = next(image for image in create_snapshot(judged, "weapons").images if image.item_id == item.id)
    assert image.p_harmful == 1.0


@pytest.mark.parametrize(("rule", "is_close"), [("dawid_skene", False), ("majority", False), ("bradley_terry", True)])
def test_pair_snapshot_prefers_what_people_prefer(tmp_path: Path, rule: str, is_close: bool) -> None:
    def answer(lease: Assignment, name: str) -> JudgmentInput:
        chosen = "tie" if lease.item_id == 3 else "first" if lease.item_id % 2 else "second"
        return JudgmentInput(new_uuid(random.Random(f"{lease.item_id}{name}")), name, chosen, lease.id)

    with build_pair_store(tmp_path, "pair", 6, 2) as store:
        judge_all(store, "likes", answer=answer)
        snapshot = create_snapshot(store, "likes", rule)
        labels = {label.item_id: label for label in snapshot.labels}
        assert labels[1].answer == "first"
        assert labels[2].answer == "second"
        assert labels[1].utilities[0] > labels[1].utilities[1]
        assert labels[3].p_positive == pytest.approx(0.5, abs=0.05)
        assert snapshot.agreement["alpha"] == 1.0
        liked = {image.sha256 for image in snapshot.images if image.is_harmful}
        assert labels[1].images[0] in liked and labels[2].images[1] in liked
        assert labels[1].images[1] not in liked and labels[2].images[0] not in liked
        people = sum(judgment.item_id == 1 for judgment in snapshot.judgments)
        compared = preferences(snapshot)
        assert compared.count(labels[1].images) == compared.count(labels[2].images[::-1]) == people > 0
        assert labels[3].images not in compared and labels[3].images[::-1] not in compared
        assert (0.5 < (labels[1].p_positive or 0) < 0.9999) == is_close


def test_ranking_snapshot_orders_images(tmp_path: Path) -> None:
    def answer(lease: Assignment, name: str) -> JudgmentInput:
        ranks = (1, 2, 3, 4) if name != "cy" else (1, 2, 2, 4)
        return JudgmentInput(new_uuid(random.Random(f"{lease.item_id}{name}")), name, "ranked", lease.id, ranks=ranks)

    with build_pair_store(tmp_path, "ranking", 3, 4) as store:
        judge_all(store, "likes", answer=answer)
        for rule in ("plackett_luce", "mean_rank"):
            label = create_snapshot(store, "likes", rule).labels[0]
            assert list(label.utilities) == sorted(label.utilities, reverse=True)
        snapshot = create_snapshot(store, "likes")
        assert 0.8 < snapshot.agreement["alpha"] <= 1.0
        assert len(snapshot.images) == 12  # each once, the first of a ranking above its last
        share = {image.sha256: image.p_harmful for image in snapshot.images}
        for label in snapshot.labels:
            assert share[label.images[0]] > 0.5 > share[label.images[3]]
        first = snapshot.labels[0].images
        compared = preferences(snapshot)
        assert compared.count((first[0], first[3])) == 3
        assert compared.count((first[1], first[2])) == 2  # cy tied them
        assert not any(pair[::-1] in compared for pair in compared)


def test_score_snapshot_averages(tmp_path: Path) -> None:
    def answer(lease: Assignment, name: str) -> JudgmentInput:
        score = {"ada": 5, "bo": 4, "cy": 3}[name]
        return JudgmentInput(new_uuid(random.Random(f"{lease.item_id}{name}")), name, "scored", lease.id, score=score)

    with build_pair_store(tmp_path, "score", 2, 1) as store:
        judge_all(store, "likes", answer=answer)
        assert [image.p_harmful for image in create_snapshot(store, "likes").images] == [0.75, 0.75]


def test_stats_show_each_annotator(tmp_path: Path, judged: Store) -> None:
    gold = [item.id for item in judged.list_items("weapons") if item.id % 5 == 0]
    for item_id in gold:
        judged.add_gold("weapons", item_id, "yes" if item_id % 3 == 0 else "no", "as it is")
    found = measure_project(judged, "weapons", n_bootstrap=50)
    rows = {row["annotator"]: row for row in found["annotators"]}
    assert (rows["ada"]["gold_right"], rows["ada"]["gold_seen"]) == (2, 2)
    assert (rows["cy"]["gold_right"], rows["cy"]["gold_seen"]) == (0, 2)
    assert 0.5 < found["agreement"]["alpha"] < 1
    assert found["agreement"]["low"] <= found["agreement"]["alpha"] <= found["agreement"]["high"]
    assert found["agreement"]["by_category"]["gun"]["alpha"] is not None
    assert rows["ada"]["confusion"][1][1] > 0.9
    assert found["n_simulated"] == 0


def test_run_names_its_snapshot_and_is_found_again(judged: Store) -> None:
    snapshot = create_snapshot(judged, "weapons")
    config = {"steps": 3, "rate": 0.1}
    run = judged.start_run("score", config, snapshot.hash, {"model": "abc"})
    assert judged.find_run("score", config_hash({"rate": 0.1, "steps": 3})) is None
    with judged.writing_artifact(run.id, "model", "weights", {"n": 1}) as folder:
        (folder / "weights.bin").write_bytes(b"123")
    done = judged.finish_run(run.id, "done", {"auroc": 0.9}, seconds=1.5, peak_memory_mib=20)
    assert judged.find_run("score", config_hash(config)) == done
    assert (done.snapshot_hash, done.metrics, done.status) == (snapshot.hash, {"auroc": 0.9}, "done")
    artifact = judged.list_artifacts(run.id)[0]
    assert (judged.path / artifact.path / "weights.bin").read_bytes() == b"123"
    assert judged.list_runs(kind="score", status="done") == [done]


def test_artifact_that_failed_half_way_leaves_nothing(judged: Store) -> None:
    run = judged.start_run("score", {})
    with pytest.raises(RuntimeError), judged.writing_artifact(run.id, "model", "weights") as folder:
        (folder / "half.bin").write_bytes(b"1")
        raise RuntimeError
    assert judged.list_artifacts(run.id) == []
    assert not (judged.artifact_dir(run.id) / "model").exists()
    assert list((judged.path / "tmp").iterdir()) == []


def test_run_refuses_what_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no snapshot"):
        store.start_run("score", {}, "f" * 64)
    run = store.start_run("score", {})
    with pytest.raises(InvalidInputError, match="run status"):
        store.finish_run(run.id, "great")
    (tmp_path / "outside").write_text("x")
    with pytest.raises(InvalidInputError, match="not in the store"):
        store.add_artifact(run.id, "x", "file", tmp_path / "outside")


def test_people_and_projects_refuse_conflicts(store: Store) -> None:
    assert store.add_annotator("ada") == store.get_annotator("ADA")
    assert store.add_annotator("sim", is_simulated=True, details={"false_yes": 0.1}).is_simulated
    with pytest.raises(ConflictError, match="other settings"):
        store.add_annotator("ada", role="owner")
    with pytest.raises(ConflictError, match="Choose another name"):
        store.create_project("weapons")
    for name in ("", " x", "a/b", "x" * 41, "<b>", "a\nb"):
        with pytest.raises(InvalidInputError):
            store.add_annotator(name)
    with pytest.raises(InvalidInputError, match="project kind"):
        store.create_project("x", kind="poll")
    with pytest.raises(InvalidInputError, match="number of annotators per item is -3"):
        store.create_project("x", annotators_per_item=-3)
    with pytest.raises(NotFoundError, match="'weapons'"):
        store.get_project("nope")
    store.give_consent("weapons", "ada", "You may see weapons.")
    assert store.has_consent("weapons", "ada")
    store.withdraw_consent("weapons", "ada")
    assert not store.has_consent("weapons", "ada")
