"""Migration of what the gallery looks pictures up by. It continues the numbering of ``storage.migrations_accounts``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.ddl import migration as _migration
from storage.ddl import run_script as _run_script

if TYPE_CHECKING:
    from sqlite_utils import Database


@_migration
def m0014_concept_scores(db: Database) -> None:
    """The newest score model's scores, as rows to find pictures by; the run's own file stays the truth."""
    _run_script(
        db,
        """
    CREATE TABLE concept_score (
      project_id INTEGER NOT NULL REFERENCES project (id),
      image_sha256 TEXT NOT NULL REFERENCES image (sha256),
      score REAL NOT NULL CHECK (score BETWEEN 0 AND 1),
      spread REAL NOT NULL CHECK (spread >= 0),
      run_id TEXT NOT NULL REFERENCES run (id),
      PRIMARY KEY (project_id, image_sha256)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX concept_score_by_score ON concept_score (project_id, score);
    """,
    )
