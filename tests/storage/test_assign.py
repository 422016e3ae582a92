"""The queue: who gets what, in which order, how often, and what happens to leases that nobody answers."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest

from storage import ItemInput, JudgmentInput, Store
from storage.errors import InvalidInputError, NotFoundError
from tests.storage.builders import (
    HandClock,
    add_pictures,
    build_flag_store,
    build_pair_store,
    flag_by_number,
    judge_all,
    new_uuid,
)


def test_claim_gives_each_item_to_k_annotators_and_never_twice_to_one(store: Store) -> None:
    for name in ("ada", "bo", "cy", "sim"):
        leases = store.claim("weapons", name, 50)
        assert len({lease.item_id for lease in leases}) == len(leases)
        assert len(leases) == (12 if name != "sim" else 0)
    assert all(item.n_leased == 3 for item in store.list_items("weapons"))


def test_claim_never_shows_one_prompt_group_twice_running(store: Store) -> None:
    leases = store.claim("weapons", "ada", 12)
    groups = [lease.prompt for lease in leases]
    assert len(groups) == 12
    repeats = sum(one == other for one, other in itertools.pairwise(groups[:9]))
    assert repeats == 0


def test_claim_after_expiry_gives_the_slot_to_someone_else(tmp_path: Path) -> None:
    with build_flag_store(tmp_path, 2, annotators_per_item=1, lease_seconds=60) as store:
        assert len(store.claim("weapons", "ada", 5)) == 2
        assert store.claim("weapons", "bo", 5) == []
        assert isinstance(store.clock, HandClock)
        store.clock.seconds += 61
        assert len(store.claim("weapons", "bo", 5)) == 2
        assert store.list_leases("weapons", "ada") == []


def test_judgment_on_an_expired_lease_is_kept(tmp_path: Path) -> None:
    with build_flag_store(tmp_path, 1, annotators_per_item=1, lease_seconds=60) as store:
        assert isinstance(store.clock, HandClock)
        late = store.claim("weapons", "ada", 1)[0]
        store.clock.seconds += 61
        taken = store.claim("weapons", "bo", 1)[0]
        store.submit_judgments([flag_by_number(late, "ada")])
        store.submit_judgments([flag_by_number(taken, "bo")])
        assert store.get_item(late.item_id).n_judgments == 2
        assert store.get_item(late.item_id).n_leased == 0


def test_release_puts_items_back(store: Store) -> None:
    store.claim("weapons", "ada", 4)
    assert store.release_leases("weapons", "ada") == 4
    assert all(item.n_leased == 0 for item in store.list_items("weapons"))
    assert len(store.claim("weapons", "ada", 50)) == 12


def test_renew_keeps_leases(tmp_path: Path) -> None:
    with build_flag_store(tmp_path, 3, lease_seconds=60) as store:
        assert isinstance(store.clock, HandClock)
        store.claim("weapons", "ada", 3)
        store.clock.seconds += 50
        assert store.renew_leases("weapons", "ada") == 3
        store.clock.seconds += 50
        assert len(store.list_leases("weapons", "ada")) == 3


def test_queue_takes_reopened_then_disputed_then_uncertain_then_others(tmp_path: Path) -> None:
    with build_flag_store(tmp_path, 8, annotators_per_item=2, lease_seconds=60) as store:
        assert isinstance(store.clock, HandClock)
        disputed, expired = (lease.item_id for lease in store.claim("weapons", "ada", 2))
        mine = {lease.item_id: lease for lease in store.list_leases("weapons", "ada")}
        theirs = {lease.item_id: lease for lease in store.claim("weapons", "bo", 8)}
        store.submit_judgments([JudgmentInput(new_uuid(), "ada", "yes", mine[disputed].id)])
        store.submit_judgments([JudgmentInput(new_uuid(), "bo", "no", theirs[disputed].id)])
        store.release_leases("weapons", "bo")
        others = [item.id for item in store.list_items("weapons") if item.id not in (disputed, expired)]
        assert isinstance(store.clock, HandClock)
        store.clock.seconds += 61
        order = [lease.item_id for lease in store.claim("weapons", "cy", 8)]
        # bo's released items and ada's expired one came back first (tier 1), then the disputed one (tier 2)
        assert order[-1] == disputed
        assert set(order) == {*others, expired, disputed}


def test_uncertain_items_come_before_others(store: Store) -> None:
    items = store.list_items("weapons")
    wanted = [items[3].id, items[9].id]
    store.set_uncertainties("weapons", {wanted[0]: 0.9, wanted[1]: 0.5})
    assert [lease.item_id for lease in store.claim("weapons", "ada", 2)] == wanted


def test_items_added_later_reach_annotators_who_had_finished(store: Store) -> None:
    judge_all(store, "weapons", ["ada"])
    new = store.add_items("weapons", add_pictures(store, 20, size_px=9))
    assert {lease.item_id for lease in store.claim("weapons", "ada", 50)} == {item.id for item in new}


def test_skip_hands_the_item_to_someone_else(tmp_path: Path) -> None:
    with build_flag_store(tmp_path, 1, annotators_per_item=1) as store:
        lease = store.claim("weapons", "ada", 1)[0]
        store.submit_judgments([JudgmentInput(new_uuid(), "ada", "skip", lease.id, reason="too dark")])
        assert store.claim("weapons", "ada", 1) == []
        assert len(store.claim("weapons", "bo", 1)) == 1


def test_two_broken_answers_send_the_item_to_a_reviewer(tmp_path: Path) -> None:
    with build_flag_store(tmp_path, 1) as store:
        for name in ("ada", "bo"):
            lease = store.claim("weapons", name, 1)[0]
            store.submit_judgments([JudgmentInput(new_uuid(), name, "broken", lease.id)])
        assert [item.status for item in store.list_items("weapons")] == ["adjudicate"]
        assert store.claim("weapons", "cy", 1) == []


def test_disagreement_asks_up_to_the_maximum_then_a_reviewer_decides(tmp_path: Path) -> None:
    with build_flag_store(tmp_path, 1, annotators_per_item=2, annotators_max=3, posterior_threshold=0.95) as store:
        for name, answer in (("ada", "yes"), ("bo", "no"), ("cy", "yes")):
            lease = store.claim("weapons", name, 1)[0]
            store.submit_judgments([JudgmentInput(new_uuid(), name, answer, lease.id)])
        item = store.list_items("weapons")[0]
        assert (item.status, item.n_judgments) == ("adjudicate", 3)
        store.add_annotator("rev", role="reviewer")
        record = store.submit_judgments([JudgmentInput(new_uuid(), "rev", "no", item_id=item.id)])[0]
        assert record.purpose == "adjudicate"
        assert store.get_item(item.id).status == "done"


def test_gold_comes_first_in_training_and_hidden_later(tmp_path: Path) -> None:
    with build_flag_store(tmp_path, 30, gold_fraction=0.5) as store:
        items = store.list_items("weapons")
        for item in items[:2]:
            store.add_gold("weapons", item.id, "yes", "a gun", is_training=True)
        for item in items[2:6]:
            store.add_gold("weapons", item.id, "no", "a toy")
        leases = store.claim("weapons", "ada", 20)
        assert [lease.purpose for lease in leases[:2]] == ["training", "training"]
        assert sum(lease.purpose == "gold" for lease in leases) == 4
        store.submit_judgments([flag_by_number(lease, "ada") for lease in leases])
        gold = store.get_gold(items[0].id)
        assert gold is not None
        assert gold["explanation"] == "a gun"
        assert all(store.get_item(item.id).n_judgments == 0 for item in items[:6])


def test_self_repeats_ask_again_after_a_while(tmp_path: Path) -> None:
    with build_flag_store(tmp_path, 60, repeat_fraction=0.3) as store:
        judge_all(store, "weapons", ["ada"])
        repeats = [row for row in store.list_judgments("weapons") if row.purpose == "repeat"]
        assert 5 <= len(repeats) <= 25
        assert len({row.item_id for row in repeats}) == len(repeats)
        assert all(item.n_judgments == 1 for item in store.list_items("weapons"))


def test_opt_out_hides_a_kind_until_it_is_taken_back(store: Store) -> None:
    pictures = add_pictures(store, 3, size_px=10)
    store.add_items("weapons", [ItemInput((pictures[0],), "x", category_hint="gun")])
    store.set_opt_out("weapons", "ada", "gun")
    assert len(store.claim("weapons", "ada", 50)) == 12
    store.set_opt_out("weapons", "ada", "gun", is_opted_out=False)
    assert len(store.claim("weapons", "ada", 50)) == 1
    lease = next(lease for lease in store.claim("weapons", "bo", 50) if lease.prompt == "x")
    store.submit_judgments([JudgmentInput(new_uuid(), "bo", "hide_kind", lease.id)])
    assert store.list_opt_outs("weapons", "bo") == ["gun"]


def test_shown_order_is_a_stored_permutation(tmp_path: Path) -> None:
    from tests.storage.builders import build_pair_store

    with build_pair_store(tmp_path, "ranking", 10, 4) as store:
        leases = store.claim("likes", "ada", 10)
        assert all(sorted(lease.shown_order) == [0, 1, 2, 3] for lease in leases)
        assert len({lease.shown_order for lease in leases}) > 1
        ranked = JudgmentInput(new_uuid(), "ada", "ranked", leases[0].id, ranks=(1, 2, 2, 4))
        assert store.submit_judgments([ranked])[0].shown_order == leases[0].shown_order


@pytest.mark.parametrize("n", [-1, 0, 1000])
def test_claim_refuses_a_number_out_of_range(store: Store, n: int) -> None:
    with pytest.raises(InvalidInputError, match="number of items to claim"):
        store.claim("weapons", "ada", n)


def test_claim_refuses_unknown_and_disabled_annotators(store: Store) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        store.claim("weapons", "nobody")
    store.disable_annotator("ada")
    with pytest.raises(InvalidInputError, match="disabled"):
        store.claim("weapons", "ada")


def test_threads_claim_every_slot_once(tmp_path: Path) -> None:
    with build_flag_store(tmp_path, 60, annotators_per_item=2) as store:
        seen: list[tuple[int, str]] = []

        def work(name: str) -> None:
            while leases := store.claim("weapons", name, 3):
                seen.extend((lease.item_id, name) for lease in leases)

        threads = [threading.Thread(target=work, args=(name,)) for name in ("ada", "bo", "cy", "sim")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == len(set(seen)) == 120


@pytest.mark.parametrize(
    ("kind", "size"),
    [("flag", 0), ("flag", 2), ("score", 2), ("pair", 1), ("pair", 3), ("ranking", 1), ("ranking", 10)],
)
def test_items_have_the_number_of_pictures_of_their_kind(tmp_path: Path, kind: str, size: int) -> None:
    with build_pair_store(tmp_path, kind, 0, 1) as store:
        pictures = add_pictures(store, 10)
        with pytest.raises(InvalidInputError, match=rf"{kind} project 'likes' has .*got {size}:.*Regroup"):
            store.add_items("likes", [tuple(pictures[:size])])
        assert store.list_items("likes") == []
