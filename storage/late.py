"""Judgments from a browser: each for itself, however late it comes, and never more than an item asks for."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from storage import sql
from storage import sql_accounts as sql_a
from storage.accounts import AccountSection
from storage.connection import explain_error
from storage.errors import ConflictError, HFIError, InvalidInputError, LeaseError, NotFoundError
from storage.records import OTHER_ANSWERS, Assignment, JudgmentInput, Project

MAX_OPEN_LEASES = 60  # an annotator can't keep more than this from the others


@dataclass(frozen=True, slots=True)
class SubmitOutcome:
    """What became of one judgment.

    Args:
        status: stored; known (it was there already); conflict (the uuid or the assignment has another answer);
            expired (others have answered in the meantime); invalid (it breaks a rule or is not the sender's).
        message: one sentence for the person; "" when it is stored or known.
    """

    uuid: str
    status: str
    message: str = ""


class LateSection(AccountSection):
    """Submitting one by one, and leases as a browser needs them."""

    def submit_each(self, judgments: Iterable[JudgmentInput]) -> list[SubmitOutcome]:
        """Write each judgment that can be written; one that can't never loses the others.

        All of them are written in one transaction: once this returns, what is "stored" survives a crash. A
        judgment whose lease has expired or was given back is stored if its item still has room for it.
        """
        outcomes = []
        with self.transaction() as connection:
            for judgment in judgments:
                connection.execute("SAVEPOINT one_judgment")
                try:
                    outcome = self._submit_or_refuse(connection, judgment)
                except (HFIError, sqlite3.IntegrityError) as error:
                    connection.execute("ROLLBACK TO one_judgment")
                    outcome = self._refused(judgment, error)
                connection.execute("RELEASE one_judgment")
                outcomes.append(outcome)
        return outcomes

    def _submit_or_refuse(self, connection: sqlite3.Connection, judgment: JudgmentInput) -> SubmitOutcome:
        is_known = connection.execute(sql.JUDGMENT_PAYLOAD, (judgment.uuid,)).fetchone() is not None
        is_new_answer = not is_known and judgment.assignment_id is not None and not judgment.supersedes
        if is_new_answer and not self._has_room(connection, judgment):
            message = "Others have answered this one in the meantime; your answer was not needed any more."
            return SubmitOutcome(judgment.uuid, "expired", message)
        self.submit_judgments([judgment])
        return SubmitOutcome(judgment.uuid, "known" if is_known else "stored")

    def _has_room(self, connection: sqlite3.Connection, judgment: JudgmentInput) -> bool:
        """Whether the item can take this answer: its slot is still held, or another one is free."""
        row = connection.execute(sql_a.LEASE_FOR_LATE, (judgment.assignment_id,)).fetchone()
        if row is None:
            return True  # `submit_judgments` says that there is no such lease
        state, slot, purpose, item_id, project_id, annotator_id, item_status, is_open = row
        if state == "done" or (state == "leased" and (slot is not None or purpose != "normal")):
            return True
        again = connection.execute(
            sql_a.LEASE_ELSEWHERE, (item_id, annotator_id, judgment.assignment_id, int(purpose == "repeat"))
        ).fetchone()
        if again is not None and again[2] == "done":
            return False
        if again is not None:  # the same item was handed to the same person again: this answer takes that lease's place
            self._end_lease(connection, project_id, again[0], item_id, again[1], "released", self.now_us())
            is_open = is_open or again[1] is not None
        if purpose != "normal" or judgment.answer in OTHER_ANSWERS:
            return True
        return bool(is_open) and item_status == "open"

    def _refused(self, judgment: JudgmentInput, error: Exception) -> SubmitOutcome:
        if isinstance(error, sqlite3.Error):
            error = explain_error(error, str(self.path))
        if isinstance(error, ConflictError):
            return SubmitOutcome(str(judgment.uuid), "conflict", str(error))
        if isinstance(error, InvalidInputError | LeaseError | NotFoundError):
            return SubmitOutcome(str(judgment.uuid), "invalid", str(error))
        raise error  # a full disk or a damaged store concerns all of them

    def claim_more(self, project: str, annotator: str, n: int, have: Sequence[int]) -> list[Assignment]:
        """Leases for a browser that already has some.

        Args:
            n: how many it can take besides those it has.
            have: the assignments it has; they are kept for another full term.

        Returns:
            Up to ``n`` leases it does not have: first its own that it lost (a reload), then new ones.
        """
        record, user, now_us = self.get_project(project), self.get_annotator(annotator), self.now_us()
        expires_at_us = now_us + int(record.lease_seconds * 1_000_000)
        with self.transaction() as connection:
            renewed = [(expires_at_us, assignment_id, user.id) for assignment_id in have]
            connection.executemany(sql_a.ASSIGNMENT_IDS_RENEW, renewed)
            self.release_unwanted(project, annotator)
            held = self.list_leases(project, annotator)
            lost = [lease for lease in held if lease.id not in set(have)][:n]
            renewed = [(expires_at_us, lease.id, user.id) for lease in lost]
            connection.executemany(sql_a.ASSIGNMENT_IDS_RENEW, renewed)
            lost = [replace(lease, expires_at_us=expires_at_us) for lease in lost]
            n_new = min(n - len(lost), MAX_OPEN_LEASES - len(held))
            return lost + (self.claim(project, annotator, n_new) if n_new > 0 else [])

    def release_unwanted(self, project: str, annotator: str) -> int:
        """Give back the leases of items of a kind the annotator has opted out of; returns how many."""
        user, record = self.get_annotator(annotator), self.get_project(project)
        with self.transaction() as connection:
            leases = connection.execute(sql_a.LEASES_UNWANTED, (user.id, record.id)).fetchall()
            for assignment_id, item_id, slot in leases:
                self._end_lease(connection, record.id, assignment_id, item_id, slot, "released", self.now_us())
        return len(leases)

    def release_lease(self, assignment_id: int) -> None:
        """Give back one lease, if it is still open."""
        with self.transaction() as connection:
            row = connection.execute(sql_a.LEASE_FOR_LATE, (assignment_id,)).fetchone()
            if row is not None and row[0] == "leased":
                self._end_lease(connection, row[4], assignment_id, row[3], row[1], "released", self.now_us())

    def get_project_by_id(self, project_id: int) -> Project:
        """The project of that number.

        Raises:
            NotFoundError: there is none.
        """
        row = self.connection.execute(sql_a.PROJECT_NAME, (project_id,)).fetchone()
        if row is None:
            raise NotFoundError(f"There is no project of number {project_id}.")
        return self.get_project(row[0])
