"""What people said: checked, written once, never changed. Undo is a new row that supersedes an old one."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from storage import sql
from storage.assign import AssignSection
from storage.errors import ConflictError, InvalidInputError, LeaseError, NotFoundError
from storage.items import next_positions
from storage.records import (
    OTHER_ANSWERS,
    SUBSTANTIVE_ANSWERS,
    Assignment,
    JudgmentInput,
    JudgmentRecord,
    User,
    canonical_json,
    sha256_text,
)
from storage.validate import MAX_NOTE_CHARACTERS, check_choice, check_range, check_text

_UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
MAX_ELAPSED_MS = 7 * 86_400_000
# How often two annotators must call a picture broken before a reviewer looks at it instead of more annotators.
N_BROKEN_TO_ADJUDICATE = 2
# Assumption behind "sure enough": a single annotator is right four times in five. Only used to decide whether one
# more person is asked; the labels themselves come from `aggregate`.
ASSUMED_ACCURACY = 0.8

_POSITIVE = {"yes", "first"}
_NEGATIVE = {"no", "second"}


def judgment_from_row(row: Sequence[Any]) -> JudgmentRecord:
    """A row of the judgment queries as a record."""
    head, (categories, score, ranks, reason, note, shown_order), tail = row[:11], row[11:17], row[17:22]
    lists = (tuple(json.loads(categories)), score, tuple(json.loads(ranks)), reason, note)
    return JudgmentRecord(*head, *lists, tuple(json.loads(shown_order)), *tail)


def vote_posterior(n_positive: int, n_negative: int, accuracy: float = ASSUMED_ACCURACY) -> float:
    """How sure the larger side is right if every annotator is right with probability ``accuracy``, prior 1/2."""
    odds = (accuracy / (1 - accuracy)) ** abs(n_positive - n_negative)
    return odds / (1 + odds)


def check_judgment(judgment: JudgmentInput, kind: str, n_images: int, categories: Sequence[str]) -> None:
    """Check an answer against the rules of the item's kind.

    Raises:
        InvalidInputError: names the field, the value and the rule.
    """
    if not _UUID.match(judgment.uuid):
        raise InvalidInputError(f"The judgment uuid {judgment.uuid[:60]!r} is not a lower-case UUID. Make a new one.")
    check_choice(judgment.answer, sorted(SUBSTANTIVE_ANSWERS[kind]) + sorted(OTHER_ANSWERS), f"answer to a {kind} item")
    if judgment.categories and judgment.answer != "yes":
        raise InvalidInputError(
            f"Categories {list(judgment.categories)} came with answer {judgment.answer!r}; only 'yes' has categories."
        )
    for category in judgment.categories:
        check_choice(category, categories, "category")
    if (judgment.score is not None) != (judgment.answer == "scored"):
        raise InvalidInputError(
            f"Score {judgment.score!r} came with answer {judgment.answer!r}; give a score with 'scored' and only then."
        )
    if judgment.score is not None:
        check_range(judgment.score, 1, 5, "score")
    _check_ranks(judgment, n_images)
    if judgment.shown_order and sorted(judgment.shown_order) != list(range(n_images)):
        raise InvalidInputError(
            f"The order shown {list(judgment.shown_order)} is not an order of the item's {n_images} image(s)."
        )
    check_text(judgment.reason, "reason", MAX_NOTE_CHARACTERS)
    check_text(judgment.note, "note", MAX_NOTE_CHARACTERS)
    check_range(judgment.elapsed_ms, 0, MAX_ELAPSED_MS, "elapsed time", " ms")
    check_range(judgment.revealed_ms, 0, MAX_ELAPSED_MS, "revealed time", " ms")
    check_range(judgment.judged_at_us, 0, 2**62, "time of judging", " us")


def _check_ranks(judgment: JudgmentInput, n_images: int) -> None:
    if bool(judgment.ranks) != (judgment.answer == "ranked"):
        raise InvalidInputError(
            f"Ranks {list(judgment.ranks)} came with answer {judgment.answer!r}; give them with 'ranked' and only then."
        )
    if not judgment.ranks:
        return
    is_whole = all(isinstance(rank, int) and 1 <= rank <= n_images for rank in judgment.ranks)
    if not is_whole or len(judgment.ranks) != n_images:
        raise InvalidInputError(
            f"Ranks {list(judgment.ranks)} don't fit: give one rank from 1 (best) to {n_images} for each of the "
            f"item's {n_images} images, equal ranks for a tie."
        )


class _Target:
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

    def submit_judgments(self, judgments: Iterable[JudgmentInput]) -> list[JudgmentRecord]:
        """Write a batch of judgments, all or none; once this returns they survive a crash of the machine.

        Sending a judgment again (same uuid, same content) is harmless and returns the row there is. A judgment
        on a lease that has expired meanwhile is kept: the work was done.

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
                row_id = self._submit_one(connection, judgment, users[judgment.annotator], facts, digest)
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
        target = _Target(connection, judgment, user)
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
        target: _Target,
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
        self, connection: sqlite3.Connection, judgment: JudgmentInput, user: User, target: _Target
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

    def _count_judgment(self, connection: sqlite3.Connection, judgment: JudgmentInput, target: _Target) -> None:
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
        if is_substantive:
            self._decide_status(connection, target, counts)
        elif judgment.answer == "broken" and self._is_broken(connection, target):
            connection.execute(sql.ITEM_SET_STATUS, ("adjudicate", target.item_id))
        else:
            place = next_positions(connection, target.project_id, 1)
            connection.execute(sql.ITEM_REQUEUE, (1, place, target.item_id))

    def _is_broken(self, connection: sqlite3.Connection, target: _Target) -> bool:
        votes = dict(connection.execute(sql.ITEM_VOTES, (target.project_id, target.item_id)).fetchall())
        return int(votes.get("broken", 0)) >= N_BROKEN_TO_ADJUDICATE

    def _decide_status(self, connection: sqlite3.Connection, target: _Target, counts: Sequence[Any]) -> None:
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
        target = _Target.__new__(_Target)
        target.item_id, target.project_id = item_id, project_id
        target.annotators_max, target.threshold = connection.execute(sql.ITEM_FOR_JUDGING, (item_id,)).fetchone()[5:7]
        self._decide_status(connection, target, counts)

    def undo_judgment(self, uuid: str, annotator: str, undo_uuid: str, now: float | None = None) -> Assignment | None:
        """Take back one's own judgment; the item is leased to the annotator again.

        Args:
            uuid: of the judgment to take back.
            undo_uuid: made by the client for this act; sending the undo again is harmless.

        Returns:
            The lease to answer again, or None if the judgment answered no lease.

        Raises:
            NotFoundError: the annotator has no such judgment.
            ConflictError: it has been replaced already.
        """
        user, now_us = self.get_annotator(annotator), self.now_us(now)
        with self.transaction() as connection:
            payload = JudgmentInput(undo_uuid, annotator, "retracted", supersedes=uuid)
            payload_sha256 = sha256_text(canonical_json(asdict(payload)))
            known = connection.execute(sql.JUDGMENT_BY_UUID, (undo_uuid,)).fetchone()
            if known is not None:
                if known[-1] != payload_sha256:
                    raise ConflictError(f"The judgment uuid {undo_uuid} was used for something else. Make a new one.")
                return None if known[6] is None else self.get_assignment(known[6])
            if not _UUID.match(undo_uuid):
                raise InvalidInputError(f"The judgment uuid {undo_uuid[:60]!r} is not a lower-case UUID. Make a new one.")
            old = self._own_current(connection, uuid, user)
            target = _Target(connection, JudgmentInput(uuid, annotator, "", item_id=old["item_id"]), user)
            target.assignment_id, target.purpose = old["assignment_id"], old["purpose"]
            guideline_id = connection.execute(sql.GUIDELINE_NEWEST, (target.project_id,)).fetchone()[0]
            values = self._row_values(payload, payload_sha256, user, target, guideline_id, old["id"])
            row_id = connection.execute(sql.JUDGMENT_INSERT, values).lastrowid
            digest = hashlib.sha256(canonical_json(values).encode("utf-8")).hexdigest()
            details = {"first": row_id, "last": row_id, "n": 1, "sha256": digest}
            self.add_audit("judgment.submit", annotator, details)
            if target.assignment_id is not None:
                lease_us = int(self._lease_seconds(target.project_id) * 1_000_000)
                connection.execute(sql.ASSIGNMENT_REOPEN, (now_us, now_us + lease_us, target.assignment_id))
            self._recount_item(connection, target.project_id, target.item_id)
            return None if target.assignment_id is None else self.get_assignment(target.assignment_id)

    def _lease_seconds(self, project_id: int) -> float:
        return next(project.lease_seconds for project in self.list_projects() if project.id == project_id)

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
