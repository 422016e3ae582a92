"""Migrations of what the pages need to know about people: invitations, tries to log in, exposure, settings.

They continue the numbering of ``storage.migrations``, which imports this module at its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.ddl import migration as _migration
from storage.ddl import run_script as _run_script

if TYPE_CHECKING:
    from sqlite_utils import Database


@_migration
def m0012_accounts(db: Database) -> None:
    """Invitations by link, failed tries to log in, and each person's own settings."""
    _run_script(
        db,
        """
    CREATE TABLE invitation (
      id INTEGER PRIMARY KEY,
      token_sha256 TEXT NOT NULL UNIQUE CHECK (length(token_sha256) = 64),
      role TEXT NOT NULL CHECK (role IN ('annotator', 'reviewer', 'researcher', 'owner')),
      created_by INTEGER REFERENCES user (id),
      created_at_us INTEGER NOT NULL,
      expires_at_us INTEGER NOT NULL,
      used_at_us INTEGER,
      used_by INTEGER REFERENCES user (id),
      revoked_at_us INTEGER
    ) STRICT;
    CREATE TABLE login_attempt (
      subject TEXT PRIMARY KEY,
      n_failed INTEGER NOT NULL CHECK (n_failed >= 0),
      failed_at_us INTEGER NOT NULL,
      blocked_until_us INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE user_setting (
      user_id INTEGER NOT NULL REFERENCES user (id),
      name TEXT NOT NULL,
      value TEXT NOT NULL,
      PRIMARY KEY (user_id, name)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX session_by_user ON session (user_id);
    """,
    )


@_migration
def m0013_care(db: Database) -> None:
    """What a project shows and asks of people, what each saw by day, and when they rest."""
    _run_script(
        db,
        """
    CREATE TABLE project_care (
      project_id INTEGER PRIMARY KEY REFERENCES project (id),
      shows_prompt INTEGER NOT NULL CHECK (shows_prompt IN (0, 1)),
      rank_size INTEGER NOT NULL CHECK (rank_size BETWEEN 2 AND 9),
      break_after_minutes INTEGER NOT NULL CHECK (break_after_minutes >= 1),
      daily_cap_minutes INTEGER NOT NULL CHECK (daily_cap_minutes >= 1),
      min_judgment_ms INTEGER NOT NULL CHECK (min_judgment_ms >= 0),
      consent_wording TEXT NOT NULL
    ) STRICT;
    CREATE TABLE exposure (
      user_id INTEGER NOT NULL REFERENCES user (id),
      project_id INTEGER NOT NULL REFERENCES project (id),
      day INTEGER NOT NULL,
      n_judged INTEGER NOT NULL,
      n_revealed INTEGER NOT NULL,
      n_too_fast INTEGER NOT NULL,
      exposed_ms INTEGER NOT NULL,
      PRIMARY KEY (user_id, project_id, day)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE rest (
      user_id INTEGER PRIMARY KEY REFERENCES user (id),
      stretch_ms INTEGER NOT NULL,
      seen_at_us INTEGER NOT NULL,
      break_until_us INTEGER NOT NULL
    ) STRICT;
    """,
    )
