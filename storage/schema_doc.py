"""docs/schema.md, made from the migrations: ``python -m storage.schema_doc > docs/schema.md``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.migrations import migrations
from storage.schema import migration_names

if TYPE_CHECKING:
    from sqlite_utils import Database


def describe_schema() -> str:
    """docs/schema.md: every table with its columns, references, indexes and triggers, from a new database."""
    from sqlite_utils import Database

    db = Database(memory=True)
    migrations.apply(db)
    lines = [
        "# The feedback store's schema",
        "",
        "Made from `storage/migrations.py` by `python -m storage.schema_doc > docs/schema.md`; don't edit it by hand.",
        "Times ending in `_us` are microseconds since 1970, UTC. Lists and settings are canonical JSON.",
        "",
        "Migrations: " + ", ".join(f"`{name}`" for name in migration_names()) + ".",
    ]
    tables = db.conn.execute(
        "SELECT name, type, sql FROM sqlite_master WHERE type IN ('table', 'view') "
        "AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '\\_%' ESCAPE '\\' ORDER BY rowid"
    ).fetchall()
    for name, kind, statement in tables:
        lines += ["", f"## {name}" + (" (view)" if kind == "view" else ""), ""]
        lines += _describe_columns(db, name) if kind == "table" else ["```sql", " ".join(statement.split()), "```"]
        lines += _describe_guards(db, name)
    return "\n".join(lines) + "\n"


def _describe_columns(db: Database, table: str) -> list[str]:
    references = {row[3]: f"{row[2]}.{row[4]}" for row in db.conn.execute(f'PRAGMA foreign_key_list("{table}")')}
    lines = ["| column | type | null | default | refers to |", "|---|---|---|---|---|"]
    for _, name, kind, is_not_null, default, key, hidden in db.conn.execute(f'PRAGMA table_xinfo("{table}")'):
        marks = (" (key)" if key else "") + (" (generated)" if hidden in (2, 3) else "")
        null = "" if is_not_null or key else "yes"
        shown = "" if default is None else f"`{default}`"
        lines.append(f"| {name}{marks} | {kind} | {null} | {shown} | {references.get(name, '')} |")
    return lines


def _describe_guards(db: Database, table: str) -> list[str]:
    rows = db.conn.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE tbl_name = ? AND type IN ('index', 'trigger') "
        "AND sql IS NOT NULL ORDER BY type, name",
        (table,),
    ).fetchall()
    lines = []
    for kind, name, statement in rows:
        text = " ".join(statement.split())
        if kind == "index":
            lines.append(f"- index `{name}`: `{text.split(' ON ', 1)[1]}`" + (" unique" if "UNIQUE" in text else ""))
        else:
            lines.append(f"- trigger `{name}`: {text.rsplit('ABORT, ', 1)[1].split(chr(41))[0]}")
    return ["", *lines] if lines else []


if __name__ == "__main__":
    print(describe_schema(), end="")
