"""What the migrations are written with: their register, the guards of append-only tables, scripts in a transaction."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database


@contextmanager
def _without_pandas() -> Iterator[None]:
    """Let nothing import pandas within the block, unless it is there already."""
    if "pandas" in sys.modules:
        yield
        return
    sys.modules["pandas"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["pandas"]


# It imports pandas where it finds it, to know one more type of column, and that takes longer than all else together.
with _without_pandas():
    from sqlite_utils.migrations import Migrations

MIGRATION_SET = "hfi-store"
APPLICATION_ID = 0x48464931  # "HFI1" in the file header, so that `file` and doctor can tell our stores apart

migrations = Migrations(MIGRATION_SET)


def migration(function: Callable[[Database], None]) -> Callable[[Database], None]:
    """Register the next migration under its function's name."""
    migrations()(function)
    return function


def forbid(table: str, *, update_of: str = "", key: str = "id") -> str:
    """Triggers that make a table append-only (or the columns ``update_of`` immutable).

    The BEFORE INSERT guard is needed because INSERT OR REPLACE skips delete triggers on connections without
    ``recursive_triggers``, which is how any other SQLite client opens the file.
    """
    of_columns = f" OF {update_of}" if update_of else ""
    same_key = " AND ".join(f"{column} = NEW.{column}" for column in key.split(", "))
    return f"""
    CREATE TRIGGER {table}_no_update BEFORE UPDATE{of_columns} ON {table}
    BEGIN SELECT RAISE(ABORT, '{table} is append-only: rows are never changed'); END;
    CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table}
    BEGIN SELECT RAISE(ABORT, '{table} is append-only: rows are never deleted'); END;
    CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table}
    WHEN EXISTS (SELECT 1 FROM {table} WHERE {same_key})
    BEGIN SELECT RAISE(ABORT, '{table} is append-only: rows are never replaced'); END;
    """


def run_script(db: Database, script: str) -> None:
    """Run DDL statement by statement: ``executescript`` would commit the surrounding transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            db.conn.execute(statement)
            statement = ""
    if statement.strip():
        db.conn.execute(statement)
