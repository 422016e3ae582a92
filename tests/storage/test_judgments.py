"""Judgments: rules by kind, one row a UUID, undo by superseding, and nothing lost when something is refused."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from storage import JudgmentInput, Store
from storage.doctor import examine_store
from storage.errors import ConflictError, HFIError, InvalidInputError, LeaseError, NotFoundError
from storage.judgment_rules import vote_posterior
from tests.storage.builders import build_flag_store, build_pair_store, judge_all, new_uuid


def flag(store: Store, name: str = "ada", answer: str = "yes", **fields: object) -> JudgmentInput:
    lease = store.claim("weapons", name, 1)[0]
    return JudgmentInput(new_uuid(), name, answer, lease.id, **fields)  # type: ignore[arg-type]


def test_submit_stores_what_was_sent(store: Store) -> None:
    sent = flag(store, categories=("knife", "gun"), elapsed_ms=1234, revealed_ms=500, judged_at_us=99, note="<b>hm</b>")
    record = store.submit_judgments([sent])[0]
    assert record == store.get_judgment(sent.uuid) == store.list_judgments("weapons")[0]
    assert (record.answer, record.categories, record.annotator) == ("yes", ("gun", "knife"), "ada")
    assert (record.elapsed_ms, record.revealed_ms, record.judged_at_us, record.note) == (1234, 500, 99, "<b>hm</b>")
    assert record.guideline_id == store.get_project("weapons").guideline_id


def test_submit_names_the_guideline_in_force(store: Store) -> None:
    first = store.submit_judgments([flag(store)])[0]
    project = store.add_guideline("weapons", "Toys count too.")
    second = store.submit_judgments([flag(store)])[0]
    assert (first.guideline_id, second.guideline_id) == (1, project.guideline_id)
    assert [text for _, text in store.list_guidelines("weapons")] == [
        "Does the picture show a weapon?",
        "Toys count too.",
    ]


def test_submit_again_is_harmless(store: Store) -> None:
    sent = flag(store)
    first = store.submit_judgments([sent, sent])
    assert first == [first[0], first[0]]
    assert store.submit_judgments([sent]) == first[:1]
    assert len(store.list_judgments("weapons", is_current=False)) == 1
    assert store.get_item(first[0].item_id).n_judgments == 1


def test_submit_of_many_leaves_what_one_by_one_leaves(tmp_path: Path) -> None:
    """Several people's answers to the same items, undecided ones among them, in one batch and in batches of one."""
    chooser = random.Random(0)
    found = []
    for batch_size in (1000, 1):
        with build_flag_store(tmp_path / str(batch_size), 5) as store:
            leases = [(name, lease) for name in ("ada", "bo", "cy") for lease in store.claim("weapons", name, 5)]
            random.Random(1).shuffle(leases)
            sent = [
                JudgmentInput(
                    new_uuid(random.Random(number)), name, chooser.choice(["yes", "no", "broken", "skip"]), lease.id
                )
                for number, (name, lease) in enumerate(leases)
            ]
            first = sent[0]
            item_id = store.get_assignment(first.assignment_id or 0).item_id
            sent.append(
                JudgmentInput(
                    new_uuid(random.Random(99)), first.annotator, "no", item_id=item_id, supersedes=first.uuid
                )
            )
            records = [
                record
                for start in range(0, len(sent), batch_size)
                for record in store.submit_judgments(sent[start : start + batch_size])
            ]
            assert records == [store.get_judgment(judgment.uuid) for judgment in sent]
            assert examine_store(store.path) == []
            found.append((records, store.list_items("weapons")))
        chooser.seed(0)
    assert found[0] == found[1]


def test_submit_refuses_a_second_answer_in_the_same_batch(store: Store) -> None:
    sent = flag(store)
    with pytest.raises(ConflictError, match="answered already"):
        store.submit_judgments([sent, JudgmentInput(new_uuid(), "ada", "no", sent.assignment_id)])
    with pytest.raises(ConflictError, match=sent.uuid):
        store.submit_judgments([sent, JudgmentInput(sent.uuid, "ada", "no", sent.assignment_id)])
    assert store.list_judgments("weapons") == []


def test_submit_refuses_a_uuid_used_for_something_else(store: Store) -> None:
    sent = flag(store)
    store.submit_judgments([sent])
    with pytest.raises(ConflictError, match=sent.uuid) as caught:
        store.submit_judgments([JudgmentInput(sent.uuid, "ada", "no", sent.assignment_id)])
    assert caught.value.http_status == 409


def test_submit_refuses_a_second_answer_to_one_lease(store: Store) -> None:
    sent = flag(store)
    store.submit_judgments([sent])
    with pytest.raises(ConflictError, match="answered already"):
        store.submit_judgments([JudgmentInput(new_uuid(), "ada", "no", sent.assignment_id)])


def test_submit_refuses_someone_elses_lease(store: Store) -> None:
    sent = flag(store)
    for assignment in (sent.assignment_id, 12345):
        with pytest.raises(LeaseError, match="not leased to 'bo'") as caught:
            store.submit_judgments([JudgmentInput(new_uuid(), "bo", "yes", assignment)])
        assert caught.value.http_status == 403
    with pytest.raises(LeaseError, match="names no assignment"):
        store.submit_judgments([JudgmentInput(new_uuid(), "bo", "yes", item_id=1)])
    with pytest.raises(LeaseError, match="is for item"):
        store.submit_judgments([JudgmentInput(new_uuid(), "ada", "yes", sent.assignment_id, item_id=999)])


def test_submit_writes_all_of_a_batch_or_nothing(store: Store) -> None:
    good, bad = flag(store), flag(store, answer="maybe")
    with pytest.raises(InvalidInputError, match="maybe"):
        store.submit_judgments([good, bad])
    assert store.list_judgments("weapons") == []
    assert store.get_item(1).n_judgments == 0
    assert len(store.submit_judgments([good])) == 1


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"answer": "first"}, "answer to a flag item"),
        ({"categories": ("bomb",)}, "category 'bomb' is unknown"),
        ({"answer": "no", "categories": ("gun",)}, "only 'yes' has categories"),
        ({"score": 3}, "give a score with 'scored' and only then"),
        ({"ranks": (1,)}, "give them with 'ranked' and only then"),
        ({"shown_order": (1,)}, "not an order of the item's 1 image"),
        ({"elapsed_ms": -1}, "elapsed time is -1"),
        ({"revealed_ms": 10**12}, "revealed time"),
        ({"reason": "x" * 3000}, "reason has 3000 characters"),
        ({"judged_at_us": -5}, "time of judging"),
    ],
)
def test_submit_names_the_field_and_the_rule(store: Store, fields: dict[str, object], rule: str) -> None:
    answer = str(fields.pop("answer", "yes"))
    with pytest.raises(InvalidInputError, match=rule):
        store.submit_judgments([flag(store, answer=answer, **fields)])


@pytest.mark.parametrize("uuid", ["", "x", "123", "A" * 36, "00000000-0000-0000-0000-00000000000G"])
def test_submit_refuses_what_is_no_uuid(store: Store, uuid: str) -> None:
    lease = store.claim("weapons", "ada", 1)[0]
    with pytest.raises(InvalidInputError, match="not a lower-case UUID"):
        store.submit_judgments([JudgmentInput(uuid, "ada", "yes", lease.id)])


@pytest.mark.parametrize(
    ("kind", "n_images", "good", "bad"),
    [
        ("score", 1, {"answer": "scored", "score": 5}, {"answer": "scored", "score": 6}),
        ("score", 1, {"answer": "unsure"}, {"answer": "scored"}),
        ("pair", 2, {"answer": "both_bad"}, {"answer": "yes"}),
        ("ranking", 3, {"answer": "ranked", "ranks": (2, 1, 2)}, {"answer": "ranked", "ranks": (0, 1, 2)}),
        (
            "ranking",
            9,
            {"answer": "ranked", "ranks": (1, 2, 3, 4, 5, 6, 7, 8, 9)},
            {"answer": "ranked", "ranks": (1, 2)},
        ),
        ("ranking", 2, {"answer": "none"}, {"answer": "ranked", "ranks": (-1, 1)}),
    ],
)
def test_submit_knows_every_kind(
    tmp_path: Path, kind: str, n_images: int, good: dict[str, object], bad: dict[str, object]
) -> None:
    with build_pair_store(tmp_path, kind, 1, n_images) as store:
        lease = store.claim("likes", "ada", 1)[0]
        with pytest.raises(InvalidInputError):
            store.submit_judgments([JudgmentInput(new_uuid(), "ada", assignment_id=lease.id, **bad)])  # type: ignore[arg-type]
        record = store.submit_judgments([JudgmentInput(new_uuid(), "ada", assignment_id=lease.id, **good)])[0]  # type: ignore[arg-type]
        assert record.kind == kind
        assert record.ranks == good.get("ranks", ())


def test_undo_keeps_the_row_and_opens_the_lease_again(store: Store) -> None:
    sent = flag(store)
    first = store.submit_judgments([sent])[0]
    undo = new_uuid()
    lease = store.undo_judgment(sent.uuid, "ada", undo)
    assert lease is not None
    assert lease.id == sent.assignment_id
    assert store.undo_judgment(sent.uuid, "ada", undo) == lease
    assert store.list_judgments("weapons") == []
    assert [row.answer for row in store.list_judgments("weapons", is_current=False)] == ["yes", "retracted"]
    assert (store.get_item(first.item_id).n_judgments, store.get_item(first.item_id).n_leased) == (0, 1)
    again = store.submit_judgments([JudgmentInput(new_uuid(), "ada", "no", lease.id)])[0]
    assert store.list_judgments("weapons") == [again]
    assert store.get_item(first.item_id).n_judgments == 1


def test_undo_of_a_finished_item_opens_it_again(tmp_path: Path) -> None:
    with build_flag_store(tmp_path, 1, annotators_per_item=1) as store:
        sent = flag(store)
        store.submit_judgments([sent])
        assert store.list_items("weapons")[0].status == "done"
        store.undo_judgment(sent.uuid, "ada", new_uuid())
        assert store.list_items("weapons")[0].status == "open"
        assert store.claim("weapons", "bo", 1) == []  # the slot is still ada's


def test_supersede_replaces_ones_own_answer_once(store: Store) -> None:
    sent = flag(store)
    store.submit_judgments([sent])
    new = JudgmentInput(new_uuid(), "ada", "no", item_id=store.get_judgment(sent.uuid).item_id, supersedes=sent.uuid)
    record = store.submit_judgments([new])[0]
    assert (record.supersedes, record.assignment_id) == (sent.uuid, sent.assignment_id)
    assert store.list_latest_judgments("weapons", "ada") == [record]
    assert store.get_item(record.item_id).n_judgments == 1
    with pytest.raises(ConflictError, match="replaced already"):
        store.undo_judgment(sent.uuid, "ada", new_uuid())
    with pytest.raises(NotFoundError, match="no judgment"):
        store.undo_judgment(record.uuid, "bo", new_uuid())


def test_disabled_annotators_cannot_judge_but_can_resend(store: Store) -> None:
    sent, unsent = flag(store), flag(store)
    store.submit_judgments([sent])
    store.disable_annotator("ada")
    assert len(store.submit_judgments([sent])) == 1
    with pytest.raises(InvalidInputError, match="disabled"):
        store.submit_judgments([unsent])


def test_vote_posterior_by_hand() -> None:
    assert vote_posterior(1, 0, 0.8) == pytest.approx(0.8)
    assert vote_posterior(2, 1, 0.8) == pytest.approx(0.8)
    assert vote_posterior(3, 1, 0.8) == pytest.approx(16 / 17)
    assert vote_posterior(2, 2, 0.8) == 0.5


def test_every_error_says_more_than_its_name(store: Store) -> None:
    judge_all(store, "weapons")
    for call in (
        lambda: store.get_project("x"),
        lambda: store.get_annotator("x"),
        lambda: store.get_item(0),
        lambda: store.get_image("x"),
        lambda: store.get_judgment("x"),
        lambda: store.get_assignment(0),
        lambda: store.get_run("x"),
        lambda: store.image_path("../../etc/passwd"),
    ):
        with pytest.raises(HFIError) as caught:
            call()
        assert len(str(caught.value).split(". ")) >= 1
        assert len(str(caught.value)) > 40
