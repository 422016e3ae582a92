"""Handing out items: leases that expire, blind to what others said, in the queue's order.

The queue has four tiers, taken in order: 1 what was leased or skipped before and is open again, 2 items annotators
disagree about, 3 items the model is unsure of, 4 all others at random. Whenever an item (re-)enters a tier it gets a
place behind everything queued before, so each annotator keeps one cursor a tier that only moves forward, and a claim
costs the same however many items the annotator has already seen.
"""

from __future__ import annotations

import json
import random
import sqlite3
from typing import Any

from storage import sql
from storage.errors import NotFoundError
from storage.items import ItemSection, next_positions
from storage.records import Assignment, Project, User, canonical_json
from storage.validate import check_range

MAX_CLAIM = 200
TIERS = (1, 2, 3, 4)
N_TRAINING_ITEMS = 5
REPEAT_GAP = 20  # assignments between an answer and asking the same annotator again
_LOOK_AHEAD = 32  # candidates beyond those needed, so that one prompt group is not shown twice running


class _Queue:
    """One annotator's view of a project's queue during one claim."""

    def __init__(self, connection: sqlite3.Connection, project: Project, annotator_id: int, n: int) -> None:
        self.connection = connection
        self.key = {"project_id": project.id, "annotator_id": annotator_id}
        self.n_rows = n + _LOOK_AHEAD
        row = connection.execute(sql.QUEUE_STATE_GET, (project.id, annotator_id)).fetchone()
        self.n_claimed: int
        self.last_group: str
        self.n_claimed, self.last_group, *cursors = row or (0, "", 0, 0, 0, 0)
        self.cursors: dict[int, int] = dict(zip(TIERS, cursors, strict=True))
        self.candidates: dict[int, list[tuple[int, int, str]]] = {}
        self.scanned_to: dict[int, int] = {}

    def _load(self, tier: int) -> list[tuple[int, int, str]]:
        if tier not in self.candidates:
            query = {**self.key, "tier": tier, "cursor": self.cursors[tier], "n_rows": self.n_rows}
            rows = self.connection.execute(sql.QUEUE_CANDIDATES, query).fetchall()
            tail = self.connection.execute(sql.QUEUE_TAIL, (self.key["project_id"],)).fetchone()[0]
            self.candidates[tier] = rows
            self.scanned_to[tier] = rows[-1][1] if len(rows) == self.n_rows else tail
        return self.candidates[tier]

    def take_next(self) -> tuple[int, str] | None:
        """The next item (number, prompt group), of another group than the last one if any is left."""
        for is_same_group_allowed in (False, True):
            for tier in TIERS:
                for index, (item_id, _, group) in enumerate(self._load(tier)):
                    if is_same_group_allowed or not group or group != self.last_group:
                        del self.candidates[tier][index]
                        return item_id, group
        return None

    def save(self) -> None:
        """Move each cursor up to the first candidate that was looked at and left for later."""
        for tier, rows in self.candidates.items():
            self.cursors[tier] = rows[0][1] - 1 if rows else self.scanned_to[tier]
        values = (self.n_claimed, self.last_group, *(self.cursors[tier] for tier in TIERS))
        self.connection.execute(sql.QUEUE_STATE_PUT, (*values, self.key["project_id"], self.key["annotator_id"]))


class AssignSection(ItemSection):
    """Claiming, renewing and giving back leases."""

    def claim(self, project: str, annotator: str, n: int = 1, now: float | None = None) -> list[Assignment]:
        """Lease the next items for an annotator; fewer than ``n`` (or none) when the queue runs out.

        Each item goes to at most as many annotators at once as it still needs, and never twice to the same one
        (but for self-repeats, which don't count towards the item).

        Args:
            n: how many, 1 to 200.
            now: seconds since 1970 UTC; default: the store's clock.

        Raises:
            NotFoundError: no such project or annotator.
            InvalidInputError: the annotator is disabled, or ``n`` out of range.
        """
        check_range(n, 1, MAX_CLAIM, "number of items to claim")
        record, user, now_us = self.get_project(project), self._active_annotator(annotator), self.now_us(now)
        with self.transaction() as connection:
            self._expire_leases(connection, record.id, now_us)
            queue = _Queue(connection, record, user.id, n)
            claimed: list[int] = []
            while len(claimed) < n:
                picked = self._pick(connection, queue, record, user)
                if picked is None:
                    break
                purpose, item_id, queue.last_group = picked
                queue.n_claimed += 1
                claimed.append(self._lease(connection, record, user, purpose, item_id, now_us))
            queue.save()
            return [self.get_assignment(assignment_id) for assignment_id in claimed]

    def _pick(
        self, connection: sqlite3.Connection, queue: _Queue, project: Project, user: User
    ) -> tuple[str, int, str] | None:
        """(purpose, item, prompt group) of the next assignment.

        Gold and repeats come by a draw that depends on the annotator and the count of assignments alone, so that
        nobody can tell them from ordinary items and a test can.
        """
        if queue.n_claimed < N_TRAINING_ITEMS:
            found = connection.execute(sql.GOLD_CANDIDATES, {**queue.key, "is_training": 1, "n_rows": 1}).fetchone()
            if found:
                return ("training", *found)
        draw = random.Random(f"{project.id}:{user.id}:{queue.n_claimed}").random()
        if draw < project.gold_fraction:
            found = connection.execute(sql.GOLD_CANDIDATES, {**queue.key, "is_training": 0, "n_rows": 1}).fetchone()
            if found:
                return ("gold", *found)
        elif draw < project.gold_fraction + project.repeat_fraction:
            query = {**queue.key, "gap": REPEAT_GAP, "n_rows": 1}
            found = connection.execute(sql.REPEAT_CANDIDATES, query).fetchone()
            if found:
                return ("repeat", *found)
        item = queue.take_next()
        return None if item is None else ("normal", *item)

    def _lease(
        self, connection: sqlite3.Connection, project: Project, user: User, purpose: str, item_id: int, now_us: int
    ) -> int:
        slot = None
        if purpose == "normal":
            taken = {row[0] for row in connection.execute(sql.SLOTS_TAKEN, (item_id,))}
            slot = next(number for number in range(len(taken) + 1) if number not in taken)
            connection.execute(sql.ITEM_LEASED, (item_id,))
        order = list(range(len(self._images_of(item_id))))
        random.Random(f"{item_id}:{user.id}:{purpose}").shuffle(order)
        expires_at_us = now_us + int(project.lease_seconds * 1_000_000)
        values = (project.id, item_id, user.id, purpose, slot, canonical_json(order), now_us, expires_at_us)
        assignment_id = connection.execute(sql.ASSIGNMENT_INSERT, values).lastrowid
        assert assignment_id is not None
        return assignment_id

    def _expire_leases(self, connection: sqlite3.Connection, project_id: int, now_us: int) -> None:
        expired = connection.execute(sql.LEASES_EXPIRED, (project_id, now_us)).fetchall()
        for assignment_id, item_id, slot in expired:
            self._end_lease(connection, project_id, assignment_id, item_id, slot, "expired", now_us)

    def _end_lease(
        self,
        connection: sqlite3.Connection,
        project_id: int,
        assignment_id: int,
        item_id: int,
        slot: int | None,
        state: str,
        now_us: int,
    ) -> None:
        connection.execute(sql.ASSIGNMENT_EXPIRE, (state, now_us, assignment_id))
        if slot is not None:
            connection.execute(sql.ITEM_LEASE_ENDED, (next_positions(connection, project_id, 1), item_id))

    def get_assignment(self, assignment_id: int) -> Assignment:
        """The assignment of that number.

        Raises:
            NotFoundError: there is none.
        """
        row = self.connection.execute(sql.ASSIGNMENT_BY_ID, (assignment_id,)).fetchone()
        if row is None:
            raise NotFoundError(f"There is no assignment {assignment_id}. Claim items to get one.")
        return self._assignment(row)

    def list_leases(self, project: str, annotator: str, now: float | None = None) -> list[Assignment]:
        """What an annotator has claimed, not answered, and may still answer: where a reloaded page goes on."""
        key = (self.get_annotator(annotator).id, self.get_project(project).id, self.now_us(now))
        return [self._assignment(row) for row in self.connection.execute(sql.LEASES_OF_ANNOTATOR, key).fetchall()]

    def renew_leases(self, project: str, annotator: str, now: float | None = None) -> int:
        """Keep an annotator's leases for another full term; returns how many."""
        record, user, now_us = self.get_project(project), self.get_annotator(annotator), self.now_us(now)
        expires_at_us = now_us + int(record.lease_seconds * 1_000_000)
        with self.transaction() as connection:
            return connection.execute(sql.ASSIGNMENT_RENEW, (expires_at_us, user.id, record.id, now_us)).rowcount

    def release_leases(self, project: str, annotator: str, now: float | None = None) -> int:
        """Give back everything an annotator has claimed and not answered (log out, break); returns how many."""
        record, user, now_us = self.get_project(project), self.get_annotator(annotator), self.now_us(now)
        with self.transaction() as connection:
            leases = connection.execute(sql.LEASES_OF_ANNOTATOR, (user.id, record.id, now_us)).fetchall()
            for assignment_id, item_id, *_ in leases:
                slot = connection.execute(sql.ASSIGNMENT_SLOT, (assignment_id,)).fetchone()[0]
                self._end_lease(connection, record.id, assignment_id, item_id, slot, "released", now_us)
        return len(leases)

    def _assignment(self, row: tuple[Any, ...]) -> Assignment:
        assignment_id, item_id, project_id, annotator_id, purpose, kind, prompt, shown_order, leased, expires = row
        head = (assignment_id, item_id, project_id, annotator_id, purpose, kind, self._images_of(item_id), prompt)
        return Assignment(*head, tuple(json.loads(shown_order)), leased, expires)
