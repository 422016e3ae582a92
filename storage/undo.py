"""Taking a judgment back: a new row supersedes it, and the item is leased to the annotator again."""

from __future__ import annotations

import sqlite3

from storage import sql
from storage.batch import Batch
from storage.errors import ConflictError
from storage.judgment_rules import check_uuid
from storage.judgments import JudgmentSection, payload_hash, row_values
from storage.records import Assignment, JudgmentInput, User
from storage.targets import find_target_of_item


class UndoSection(JudgmentSection):
    """Undo."""

    def undo_judgment(self, uuid: str, annotator: str, undo_uuid: str, now: float | None = None) -> Assignment | None:
        """Take back one's own judgment; the item is leased to the annotator again.

        Args:
            uuid: of the judgment to take back.
            undo_uuid: made by the client for this act; sending the undo again is harmless.
            now: seconds since 1970 UTC; default: the store's clock.

        Returns:
            The lease to answer again, or None if the judgment answered no lease.

        Raises:
            NotFoundError: the annotator has no such judgment.
            ConflictError: it has been replaced already, or ``undo_uuid`` was used for something else.
        """
        check_uuid(undo_uuid)
        user, now_us = self.get_annotator(annotator), self.now_us(now)
        payload = JudgmentInput(undo_uuid, annotator, "retracted", supersedes=uuid)
        with self.transaction() as connection:
            known = connection.execute(sql.JUDGMENT_PAYLOAD, (undo_uuid,)).fetchone()
            if known is None:
                assignment_id = self._retract(connection, payload, user, now_us)
            elif known[0] == payload_hash(payload):
                assignment_id = self.get_judgment(undo_uuid).assignment_id
            else:
                raise ConflictError(f"The judgment uuid {undo_uuid} was used for something else. Make a new one.")
            return None if assignment_id is None else self.get_assignment(assignment_id)

    def _retract(self, connection: sqlite3.Connection, payload: JudgmentInput, user: User, now_us: int) -> int | None:
        """Write the superseding row and open the lease again; returns the lease's number."""
        old = self._own_current(connection, payload.supersedes, user)
        target = find_target_of_item(connection, old["item_id"], user)
        target.assignment_id, target.purpose = old["assignment_id"], old["purpose"]
        batch = Batch(connection, self.now_us(), users={user.name: user})
        guideline_id, _ = self._guideline(target.project_id, batch)
        values = row_values(payload, payload_hash(payload), user, target, guideline_id, old["id"], batch.now_us)
        batch.add_judgment(values)
        self._finish_batch(batch)
        if target.assignment_id is not None:
            lease_seconds = connection.execute(sql.PROJECT_LEASE_SECONDS, (target.project_id,)).fetchone()[0]
            expires_at_us = now_us + int(lease_seconds * 1_000_000)
            connection.execute(sql.ASSIGNMENT_REOPEN, (now_us, expires_at_us, target.assignment_id))
        self._recount_item(batch, target.item_id, user)
        return target.assignment_id
