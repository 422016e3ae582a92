"""What an answer does to its item: the counts, and whether the item is done, needs one more annotator or a reviewer."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from storage import sql
from storage.assign import AssignSection
from storage.batch import Batch
from storage.errors import ConflictError, NotFoundError
from storage.items import next_positions
from storage.judgment_rules import N_BROKEN_TO_ADJUDICATE, vote_posterior
from storage.records import OTHER_ANSWERS, User
from storage.targets import Target, find_target_of_item

_POSITIVE = frozenset({"yes", "first"})
_NEGATIVE = frozenset({"no", "second"})
_TIER_OPEN_AGAIN, _TIER_DISPUTED = 1, 2


class CountSection(AssignSection):
    """Keeping the items' counts true to the judgments that stand."""

    def _count_judgment(self, batch: Batch, answer: str, target: Target) -> None:
        """Close the lease and count a new answer towards its item."""
        is_substantive = answer not in OTHER_ANSWERS
        holds_slot = target.state == "leased" and target.slot is not None
        if target.assignment_id is not None:
            slot = target.slot if is_substantive and holds_slot else None
            batch.finished_leases.append((slot, batch.now_us, target.assignment_id))
        if target.purpose not in ("normal", "adjudicate"):
            return
        target.n_judgments += is_substantive
        target.n_positive += answer in _POSITIVE
        target.n_negative += answer in _NEGATIVE
        if is_substantive and target.purpose == "adjudicate":
            status, tier = "done", None
        elif is_substantive:
            status, tier = self._decide_status(target)
        elif answer == "broken" and self._is_broken(batch, target):
            status, tier = "adjudicate", None
        else:
            status, tier = target.status, _TIER_OPEN_AGAIN
        self._write_counts(batch, target, status, tier, int(holds_slot))

    def _recount_item(self, batch: Batch, item_id: int, user: User) -> None:
        """Count an item's standing answers afresh, after one was replaced or taken back."""
        batch.write()
        target = find_target_of_item(batch.connection, item_id, user)
        votes = dict(batch.connection.execute(sql.ITEM_VOTES, (target.project_id, item_id)).fetchall())
        target.n_judgments = sum(count for answer, count in votes.items() if answer not in OTHER_ANSWERS)
        target.n_positive = sum(votes.get(answer, 0) for answer in _POSITIVE)
        target.n_negative = sum(votes.get(answer, 0) for answer in _NEGATIVE)
        if target.status != "hidden":
            target.status = "open"
        status, tier = self._decide_status(target)
        leases_before, leases_now = batch.connection.execute(sql.ITEM_LEASE_COUNTS, (item_id,)).fetchone()
        self._write_counts(batch, target, status, tier or _TIER_OPEN_AGAIN, leases_before - leases_now)
        batch.write()

    @staticmethod
    def _decide_status(target: Target) -> tuple[str, int | None]:
        """(status, tier to queue it in or None): done, one more annotator, or a reviewer, by count and certainty."""
        if target.n_judgments < target.target_judgments or target.status == "hidden":
            return target.status, None
        is_disputed = target.n_positive > 0 and target.n_negative > 0
        if not is_disputed or vote_posterior(target.n_positive, target.n_negative) >= target.posterior_threshold:
            return "done", None
        if target.target_judgments < target.annotators_max:
            target.target_judgments += 1
            return "open", _TIER_DISPUTED
        return "adjudicate", None

    @staticmethod
    def _write_counts(batch: Batch, target: Target, status: str, tier: int | None, n_leases_ended: int) -> None:
        if target.status == "hidden":
            status = "hidden"
        counts = (target.n_judgments, target.n_positive, target.n_negative, target.target_judgments)
        if tier is None:
            batch.item_counts.append((*counts, n_leases_ended, status, target.item_id))
        else:
            place = next_positions(batch.connection, target.project_id, 1)
            batch.requeued_items.append((*counts, n_leases_ended, status, tier, place, target.item_id))

    @staticmethod
    def _is_broken(batch: Batch, target: Target) -> bool:
        batch.write()
        votes = dict(batch.connection.execute(sql.ITEM_VOTES, (target.project_id, target.item_id)).fetchall())
        return int(votes.get("broken", 0)) >= N_BROKEN_TO_ADJUDICATE

    def _own_current(self, connection: sqlite3.Connection, uuid: str, user: User) -> dict[str, Any]:
        """The user's own judgment of that uuid, if it stands."""
        row: Sequence[Any] | None = connection.execute(sql.JUDGMENT_IDS_BY_UUID, (uuid,)).fetchone()
        if row is None or row[1] != user.id:
            raise NotFoundError(f"{user.name!r} has no judgment {uuid[:60]!r}. Only own judgments can be replaced.")
        names = ("id", "annotator_id", "item_id", "assignment_id", "purpose", "project_id", "answer")
        old = dict(zip(names, row, strict=True))
        later = connection.execute(sql.JUDGMENT_SUPERSEDER, (old["id"],)).fetchone()
        if later is not None or old["answer"] == "retracted":
            raise ConflictError(f"Judgment {uuid} has been replaced already. Replace the newest one.")
        return old
