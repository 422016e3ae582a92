"""Many jobs in a moment: rows of the queue copied in SQLite."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from hfi.jobs.queue import JobQueue

COPY_JOBS = """
WITH RECURSIVE number(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM number WHERE n < :count)
INSERT INTO workflow_status ({columns})
SELECT {values} FROM workflow_status, number WHERE workflow_uuid = :job_id
"""


def multiply_job(queue: JobQueue, job_id: str, count: int) -> None:
    """Make the queue hold `count` jobs: this one and copies of it."""
    with closing(sqlite3.connect(queue.store.path / "queue.db")) as connection, connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(workflow_status)")]
        changed = {"workflow_uuid": "'slow-' || n", "creator_xid": "'x' || n", "deduplication_id": "NULL"}
        values = ", ".join(changed.get(name, name) for name in names)
        statement = COPY_JOBS.format(columns=", ".join(names), values=values)
        connection.execute(statement, {"job_id": job_id, "count": count})
