"""What people said: checked, written once, never changed. Undo is a new row that supersedes an old one."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from storage import sql
from storage.assign import AssignSection
from storage.errors import ConflictError, InvalidInputError, LeaseError, NotFoundError
from storage.items import next_positions
from storage.judgment_rules import N_BROKEN_TO_ADJUDICATE, check_judgment, vote_posterior
from storage.records import (
    OTHER_ANSWERS,
    JudgmentInput,
    JudgmentRecord,
    User,
    canonical_json,
    sha256_text,
)

_POSITIVE = {"yes", "first"}
_NEGATIVE = {"no", "second"}


def judgment_from_row(row: Sequence[Any]) -> JudgmentRecord:
    """A row of the judgment queries as a record."""
    values = list(row[:22])
    for place in (11, 13, 16):  # categories, ranks, shown_order
        values[place] = tuple(json.loads(values[place]))
    return JudgmentRecord(*values)


class Target:
    """The item (and lease) that a judgment is about, with what must be known to check and count it."""

    def __init__(self, connection: sqlite3.Connection, judgment: JudgmentInput, user: User) -> None:
        self.assignment_id = judgment.assignment_id
        self.item_id, self.purpose = judgment.item_id, "normal"
        self.slot: int | None = None
        self.state, self.order = "", "[]"
        if judgment.assignment_id is not None:
            self._read_assignment(connection, judgment, user)
        row = connection.execute(sql.ITEM_FOR_JUDGING, (self.item_id,)).fetchone()
        if row is None:
            raise NotFoundError(f"There is no item {self.item_id}. Send the number of the item that was shown.")
        self.project_id, self.kind, self.status, is_gold, self.category_hint = row[:5]
        self.annotators_max, self.threshold, self.n_images = row[5:]
        if is_gold and self.purpose == "normal":
            self.purpose = "gold"
        elif judgment.assignment_id is None and user.role in ("reviewer", "admin"):
            self.purpose = "adjudicate"
        if self.state == "":
            self.order = canonical_json(list(range(self.n_images)))

    def _read_assignment(self, connection: sqlite3.Connection, judgment: JudgmentInput, user: User) -> None:
        row = connection.execute(sql.ASSIGNMENT_STATE, (judgment.assignment_id,)).fetchone()
        if row is None or row[1] != user.id:
            raise LeaseError(
                f"Assignment {judgment.assignment_id} is not leased to {user.name!r}. Claim items and judge those."
            )
        item_id, _, _, self.purpose, self.slot, self.state, self.order = row
        if judgment.item_id not in (0, item_id):
            raise LeaseError(
                f"Assignment {judgment.assignment_id} is for item {item_id}, not {judgment.item_id}. Send the item "
                "that was shown, or leave it out."
            )
        self.item_id = item_id


class JudgmentSection(AssignSection):
    """Submitting, undoing and reading judgments."""

    def submit_judgments(self, judgments: Iterable[JudgmentInput], *, is_import: bool = False) -> list[JudgmentRecord]:
        """Write a batch of judgments, all or none; once this returns they survive a crash of the machine.

        Sending a judgment again (same uuid, same content) is harmless and returns the row there is. A judgment
        on a lease that has expired meanwhile is kept: the work was done. A reviewer's judgment without a lease
        decides the item.

        Args:
            is_import: True lets judgments made elsewhere in, which answer no lease.

        Raises:
            InvalidInputError: an answer breaks the rules of its kind.
            LeaseError: the assignment is someone else's.
            ConflictError: the uuid was used for something else, or the assignment is answered already.
            NotFoundError: no such annotator, item or superseded judgment.
        """
        batch = list(judgments)
        users: dict[str, User] = {}
        facts: dict[int, tuple[int, tuple[str, ...]]] = {}
        digest, written = hashlib.sha256(), []
        with self.transaction() as connection:
            for judgment in batch:
                if judgment.annotator not in users:
                    users[judgment.annotator] = self.get_annotator(judgment.annotator)
                user = users[judgment.annotator]
                is_leased = judgment.assignment_id is not None or judgment.supersedes or user.role != "annotator"
                if not is_leased and not is_import:
                    raise LeaseError(
                        f"Judgment {judgment.uuid} of {user.name!r} names no assignment. Claim items and judge those."
                    )
                row_id = self._submit_one(connection, judgment, user, facts, digest)
                if row_id is not None:
                    written.append(row_id)
            if written:
                details = {"first": written[0], "last": written[-1], "n": len(written), "sha256": digest.hexdigest()}
                self.add_audit("judgment.submit", batch[0].annotator, details)
            return [self.get_judgment(judgment.uuid) for judgment in batch]

    def _submit_one(
        self,
        connection: sqlite3.Connection,
        judgment: JudgmentInput,
        user: User,
        facts: dict[int, tuple[int, tuple[str, ...]]],
        digest: Any,
    ) -> int | None:
        payload_sha256 = sha256_text(canonical_json(asdict(judgment)))
        known = connection.execute(sql.JUDGMENT_BY_UUID, (judgment.uuid,)).fetchone()
        if known is not None:
            if known[-1] != payload_sha256:
                raise ConflictError(
                    f"The judgment uuid {judgment.uuid} was used for another answer. Make a new uuid for each judgment."
                )
            return None
        if user.is_disabled:
            raise InvalidInputError(f"The annotator {user.name!r} is disabled and can't judge. Use another annotator.")
        target = Target(connection, judgment, user)
        if target.project_id not in facts:
            guideline_id = connection.execute(sql.GUIDELINE_NEWEST, (target.project_id,)).fetchone()[0]
            names = tuple(name for (name,) in connection.execute(sql.CATEGORY_NAMES, (target.project_id,)))
            facts[target.project_id] = (guideline_id, names)
        guideline_id, categories = facts[target.project_id]
        check_judgment(judgment, target.kind, target.n_images, categories)
        supersedes_id = self._superseded_id(connection, judgment, user, target)
        values = self._row_values(judgment, payload_sha256, user, target, guideline_id, supersedes_id)
        digest.update(canonical_json(values).encode("utf-8"))
        row_id = connection.execute(sql.JUDGMENT_INSERT, values).lastrowid
        if supersedes_id is not None:
            self._recount_item(connection, target.project_id, target.item_id)
        else:
            self._count_judgment(connection, judgment, target)
        if judgment.answer == "hide_kind" and target.category_hint:
            row = (user.id, target.project_id, target.category_hint, self.now_us())
            connection.execute(sql.OPT_OUT_INSERT, row)
        return row_id

    def _row_values(
        self,
        judgment: JudgmentInput,
        payload_sha256: str,
        user: User,
        target: Target,
        guideline_id: int,
        supersedes_id: int | None,
    ) -> tuple[Any, ...]:
        now_us = self.now_us()
        ids = (target.project_id, target.item_id, user.id, target.assignment_id, guideline_id, target.purpose)
        texts = (judgment.reason, judgment.note)
        order = canonical_json(list(judgment.shown_order)) if judgment.shown_order else target.order
        answer = (judgment.answer, canonical_json(sorted(set(judgment.categories))), judgment.score)
        times = (judgment.elapsed_ms, judgment.revealed_ms, judgment.judged_at_us or now_us, now_us)
        ranks = canonical_json(list(judgment.ranks))
        return (judgment.uuid, payload_sha256, *ids, *answer, ranks, *texts, order, *times, supersedes_id)

    def _superseded_id(
        self, connection: sqlite3.Connection, judgment: JudgmentInput, user: User, target: Target
    ) -> int | None:
        if not judgment.supersedes:
            if target.state == "done":
                raise ConflictError(
                    f"Assignment {judgment.assignment_id} is answered already. To change the answer, name the uuid of "
                    "the first one in `supersedes`."
                )
            return None
        old = self._own_current(connection, judgment.supersedes, user)
        if old["item_id"] != target.item_id:
            raise ConflictError(
                f"Judgment {judgment.supersedes} is about item {old['item_id']}, not {target.item_id}. A judgment only "
                "replaces one of the same item."
            )
        target.assignment_id, target.purpose = old["assignment_id"], old["purpose"]
        return int(old["id"])

    def _own_current(self, connection: sqlite3.Connection, uuid: str, user: User) -> dict[str, Any]:
        row = connection.execute(sql.JUDGMENT_IDS_BY_UUID, (uuid,)).fetchone()
        if row is None or row[1] != user.id:
            raise NotFoundError(f"{user.name!r} has no judgment {uuid[:60]!r}. Only own judgments can be replaced.")
        names = ("id", "annotator_id", "item_id", "assignment_id", "purpose", "project_id", "answer")
        old = dict(zip(names, row, strict=True))
        later = connection.execute(sql.JUDGMENT_SUPERSEDER, (old["id"],)).fetchone()
        if later is not None or old["answer"] == "retracted":
            raise ConflictError(f"Judgment {uuid} has been replaced already. Replace the newest one.")
        return old

    def _count_judgment(self, connection: sqlite3.Connection, judgment: JudgmentInput, target: Target) -> None:
        """Close the lease and count the answer towards its item."""
        is_substantive = judgment.answer not in OTHER_ANSWERS
        is_normal = target.purpose in ("normal", "adjudicate")
        holds_slot = target.state == "leased" and target.slot is not None
        if target.assignment_id is not None:
            slot = target.slot if is_substantive and holds_slot else None
            connection.execute(sql.ASSIGNMENT_FINISH, (slot, self.now_us(), target.assignment_id))
        if not is_normal:
            return
        change = {
            "counted": int(is_substantive),
            "positive": int(judgment.answer in _POSITIVE),
            "negative": int(judgment.answer in _NEGATIVE),
            "lease_ended": int(holds_slot),
            "item_id": target.item_id,
        }
        counts = connection.execute(sql.ITEM_COUNT_JUDGMENT, change).fetchall()[0]
        if is_substantive and target.purpose == "adjudicate":
            connection.execute(sql.ITEM_SET_STATUS, ("done", target.item_id))
        elif is_substantive:
            self._decide_status(connection, target, counts)
        elif judgment.answer == "broken" and self._is_broken(connection, target):
            connection.execute(sql.ITEM_SET_STATUS, ("adjudicate", target.item_id))
        else:
            place = next_positions(connection, target.project_id, 1)
            connection.execute(sql.ITEM_REQUEUE, (1, place, target.item_id))

    def _is_broken(self, connection: sqlite3.Connection, target: Target) -> bool:
        votes = dict(connection.execute(sql.ITEM_VOTES, (target.project_id, target.item_id)).fetchall())
        return int(votes.get("broken", 0)) >= N_BROKEN_TO_ADJUDICATE

    def _decide_status(self, connection: sqlite3.Connection, target: Target, counts: Sequence[Any]) -> None:
        """Done, one more annotator, or a reviewer: by the count and how sure the votes make us."""
        n_judgments, n_positive, n_negative, target_judgments, status = counts
        if n_judgments < target_judgments or status == "hidden":
            return
        is_disputed = n_positive > 0 and n_negative > 0
        if not is_disputed or vote_posterior(n_positive, n_negative) >= target.threshold:
            connection.execute(sql.ITEM_SET_STATUS, ("done", target.item_id))
        elif target_judgments < target.annotators_max:
            place = next_positions(connection, target.project_id, 1)
            connection.execute(sql.ITEM_ASK_ONE_MORE, (place, target.item_id))
        else:
            connection.execute(sql.ITEM_SET_STATUS, ("adjudicate", target.item_id))

    def _recount_item(self, connection: sqlite3.Connection, project_id: int, item_id: int) -> None:
        """Count an item's current answers afresh, after one was replaced or taken back."""
        votes = dict(connection.execute(sql.ITEM_VOTES, (project_id, item_id)).fetchall())
        n_positive = sum(votes.get(answer, 0) for answer in _POSITIVE)
        n_negative = sum(votes.get(answer, 0) for answer in _NEGATIVE)
        n_judgments = sum(count for answer, count in votes.items() if answer not in OTHER_ANSWERS)
        row = (n_judgments, n_positive, n_negative, item_id)
        counts = connection.execute(sql.ITEM_SET_COUNTS, row).fetchall()[0]
        connection.execute(sql.ITEM_REOPEN, (next_positions(connection, project_id, 1), item_id))
        target = Target.__new__(Target)
        target.item_id, target.project_id = item_id, project_id
        target.annotators_max, target.threshold = connection.execute(sql.ITEM_FOR_JUDGING, (item_id,)).fetchone()[5:7]
        self._decide_status(connection, target, counts)

    def get_judgment(self, uuid: str) -> JudgmentRecord:
        """The judgment of that uuid.

        Raises:
            NotFoundError: there is none.
        """
        row = self.connection.execute(sql.JUDGMENT_BY_UUID, (uuid,)).fetchone()
        if row is None:
            raise NotFoundError(f"There is no judgment {uuid[:60]!r} in the store. Check the uuid.")
        return judgment_from_row(row)

    def list_judgments(self, project: str, *, is_current: bool = True) -> list[JudgmentRecord]:
        """The project's judgments, oldest first: those that stand, or every row ever written."""
        query = sql.JUDGMENT_CURRENT if is_current else sql.JUDGMENT_ALL
        return [judgment_from_row(row) for row in self.connection.execute(query, (self.get_project(project).id,))]

    def list_latest_judgments(self, project: str, annotator: str, n: int = 10) -> list[JudgmentRecord]:
        """An annotator's newest standing judgments, newest first: what can be undone."""
        key = (self.get_annotator(annotator).id, self.get_project(project).id, n)
        return [judgment_from_row(row) for row in self.connection.execute(sql.JUDGMENT_LATEST, key)]
