"""One transaction of judgments: what it has looked up ahead, and what it still has to write, in few statements."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from storage import sql
from storage.records import JudgmentInput, JudgmentRecord, User, canonical_json
from storage.targets import Target, TargetRow, find_target, find_target_rows, target_from_row

Values = tuple[Any, ...]


@dataclass(slots=True)
class Batch:
    """What one transaction knows and has in hand.

    Rows are collected and written together by ``write``; whoever reads what the batch itself may have changed calls
    ``write`` first. What was looked up ahead about an item serves once: the first judgment of it makes it stale.
    """

    connection: sqlite3.Connection
    now_us: int
    imported_purpose: str = ""
    users: dict[str, User] = field(default_factory=dict)
    guidelines: dict[int, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    # What is stored under a uuid already: the payload's hash, and the record if this batch made it.
    known: dict[str, tuple[str, JudgmentRecord | None]] = field(default_factory=dict)
    target_rows: dict[int, TargetRow] = field(default_factory=dict)
    stale_items: set[int] = field(default_factory=set)
    judgments: list[Values] = field(default_factory=list)
    finished_leases: list[Values] = field(default_factory=list)
    item_counts: list[Values] = field(default_factory=list)
    requeued_items: list[Values] = field(default_factory=list)
    first_id: int = 0
    next_id: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    def look_up(self, judgments: Sequence[JudgmentInput]) -> None:
        """Find by two queries which uuids are stored already and what each of these judgments is about."""
        uuids = canonical_json([judgment.uuid for judgment in judgments])
        for uuid, payload_sha256 in self.connection.execute(sql.JUDGMENT_PAYLOADS, (uuids,)):
            self.known.setdefault(uuid, (payload_sha256, None))
        leases = [judgment.assignment_id for judgment in judgments if judgment.assignment_id is not None]
        self.write()
        self.target_rows = find_target_rows(self.connection, leases) if leases else {}
        self.stale_items.clear()

    def target(self, judgment: JudgmentInput, user: User) -> Target:
        """What a judgment is about, as it stands after everything this batch has collected so far."""
        row = self.target_rows.pop(judgment.assignment_id, None) if judgment.assignment_id is not None else None
        if row is not None and row[6] not in self.stale_items:
            target = target_from_row(row, judgment, user)
        else:
            self.write()
            target = find_target(self.connection, judgment, user)
        self.stale_items.add(target.item_id)
        return target

    def add_judgment(self, values: Values) -> int:
        """Collect a row of the judgment table; returns the number it will have."""
        if not self.next_id:
            self.first_id = self.next_id = self.connection.execute(sql.JUDGMENT_NEXT_ID).fetchone()[0]
        row_id = self.next_id
        self.next_id += 1
        self.judgments.append((row_id, *values))
        return row_id

    def write(self) -> None:
        """Write everything collected; the transaction is still open."""
        if self.judgments:
            self.digest.update("".join([canonical_json(row[1:]) for row in self.judgments]).encode("utf-8"))
        for statement, rows in (
            (sql.JUDGMENT_INSERT, self.judgments),
            (sql.ASSIGNMENT_FINISH, self.finished_leases),
            (sql.ITEM_WRITE_COUNTS_IN_PLACE, self.item_counts),
            (sql.ITEM_WRITE_COUNTS, self.requeued_items),
        ):
            if rows:
                self.connection.executemany(statement, rows)
                rows.clear()
