"""What every store's schema must have, checked at every opening."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.errors import StoreDamagedError, StoreTooNewError
from storage.migrations import migrations

if TYPE_CHECKING:
    from sqlite_utils import Database


def migration_names() -> list[str]:
    """The names of all migrations this version knows, in order."""
    return [migration.name for migration in migrations._migrations]


def expected_guards() -> dict[str, set[str]]:
    """Triggers, STRICT tables and generated columns that every store of this version must have."""
    from sqlite_utils import Database

    db = Database(memory=True)
    migrations.apply(db)
    return guards(db)


def guards(db: Database) -> dict[str, set[str]]:
    """Triggers (with their text), STRICT tables, indexes and generated columns that a database has."""
    rows = db.conn.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    tables = [name for kind, name, _ in rows if kind == "table" and not name.startswith(("_", "sqlite_"))]
    return {
        "trigger": {" ".join(sql.split()) for kind, _, sql in rows if kind == "trigger"},
        "strict table": {name for kind, name, sql in rows if kind == "table" and "STRICT" in (sql or "")[-40:]},
        "unique index": {" ".join(sql.split()) for kind, _, sql in rows if kind == "index" and "UNIQUE" in sql},
        "generated column": {
            f"{table}.{row[1]}"
            for table in tables
            for row in db.conn.execute(f'PRAGMA table_xinfo("{table}")')
            if row[6] in (2, 3)
        },
    }


def assert_known(db: Database, store: str) -> None:
    """Refuse a store that a newer version wrote, before anything is changed.

    Raises:
        StoreTooNewError: the store has a migration that this version does not know.
    """
    known = set(migration_names())
    unknown = sorted({applied.name for applied in migrations.applied(db)} - known)
    if unknown:
        raise StoreTooNewError(
            f"The store {store!r} was written by a newer version of HFI (it has {unknown[-1]!r}; the newest this "
            f"version knows is {max(known)!r}). Upgrade HFI, or open a backup made by this version."
        )


def assert_guards(db: Database, store: str, expected: dict[str, set[str]] | None = None) -> None:
    """Check that no trigger, STRICT flag, unique index or generated column has gone missing.

    Raises:
        StoreDamagedError: one is missing; its message names it.
    """
    found = guards(db)
    for kind, wanted in (expected or expected_guards()).items():
        missing = sorted(wanted - found[kind])
        if missing:
            raise StoreDamagedError(
                f"The store {store!r} has lost a {kind}: {missing[0][:80]!r}. Another program changed its schema; "
                "restore the last backup, or run `hfi doctor` for the full list."
            )
