"""The hash-chained record of who did what: changing or removing any entry breaks every later hash."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from storage import sql
from storage.connection import StoreBase
from storage.records import canonical_json

GENESIS = "0" * 64


def audit_hash(previous_hash: str, at_us: int, actor: str, action: str, subject: str, details: str) -> str:
    """The hash of one entry, which includes the hash of the entry before it."""
    text = canonical_json([previous_hash, at_us, actor, action, subject, details])
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


class AuditSection(StoreBase):
    """Writing and walking the audit chain."""

    def add_audit(self, action: str, subject: str, details: Mapping[str, Any], actor: str = "system") -> None:
        """Append one entry; called inside the transaction of the act it records."""
        with self.transaction() as connection:
            last = connection.execute(sql.AUDIT_LAST).fetchone()
            previous_hash = last[0] if last else GENESIS
            at_us, text = self.now_us(), canonical_json(dict(details))
            entry_hash = audit_hash(previous_hash, at_us, actor, action, subject, text)
            connection.execute(sql.AUDIT_INSERT, (at_us, actor, action, subject, text, previous_hash, entry_hash))

    def list_audit(self, limit: int = 1000) -> list[dict[str, Any]]:
        """The newest entries, newest first."""
        cursor = self.connection.execute(sql.AUDIT_NEWEST, (limit,))
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def find_broken_links(connection: sqlite3.Connection) -> Iterator[str]:
    """Every entry of the chain whose hash does not follow from its content and the entry before it."""
    previous_hash, previous_id = GENESIS, 0
    for row in connection.execute(sql.AUDIT_ALL):
        entry_id, at_us, actor, action, subject, details, recorded_previous, recorded_hash = row
        if entry_id != previous_id + 1:
            yield f"audit entry {previous_id + 1} is missing"
        if recorded_previous != previous_hash:
            yield f"audit entry {entry_id} does not follow the entry before it"
        elif audit_hash(previous_hash, at_us, actor, action, subject, details) != recorded_hash:
            yield f"audit entry {entry_id} ({action}) was changed after it was written"
        previous_hash, previous_id = recorded_hash, entry_id
