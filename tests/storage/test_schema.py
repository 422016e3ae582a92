"""The schema: golden text, upgrades from every earlier version, and guards that no client can get around."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlite_utils import Database

from storage import Store
from storage.errors import StoreDamagedError, StoreReadOnlyError, StoreTooNewError
from storage.migrations import migrations
from storage.schema import guards, migration_names
from storage.schema_doc import describe_schema
from tests.storage.builders import build_flag_store, judge_all

DOCUMENT = Path(__file__).parents[2] / "docs" / "schema.md"
# A row that each migration's tables can hold as soon as it has run; later migrations must keep it.
ROWS = {
    "m0001_meta_and_audit": ("meta", "INSERT INTO meta VALUES ('store_id', 'old')"),
    "m0002_people": ("user", "INSERT INTO user (name, role, created_at_us) VALUES ('ada', 'annotator', 1)"),
    "m0003_projects": (
        "guideline",
        "INSERT INTO project (name, kind, annotators_per_item, annotators_max, posterior_threshold, gold_fraction, "
        "repeat_fraction, lease_seconds, is_sensitive, is_demo, created_at_us) "
        "VALUES ('p', 'flag', 3, 5, 0.9, 0, 0, 60, 0, 0, 1); "
        "INSERT INTO guideline (project_id, version, text, created_at_us) VALUES (1, 1, 'g', 1)",
    ),
    "m0004_images": (
        "image",
        "INSERT INTO image (sha256, pixel_sha256, width, height, size_bytes, created_at_us) "
        f"VALUES ('{'a' * 64}', '{'b' * 64}', 1, 1, 1, 1)",
    ),
    "m0005_items": (
        "item_image",
        "INSERT INTO item (project_id, key_sha256, prompt, prompt_group, category_hint, target_judgments, tier, "
        f"position, created_at_us) VALUES (1, '{'c' * 64}', 'p', 'p', '', 3, 4, 1, 1); "
        f"INSERT INTO item_image VALUES (1, 0, '{'a' * 64}')",
    ),
    "m0006_assignments": (
        "assignment",
        "INSERT INTO assignment (project_id, item_id, annotator_id, purpose, slot, state, shown_order, leased_at_us, "
        "expires_at_us) VALUES (1, 1, 1, 'normal', 0, 'leased', '[0]', 1, 2)",
    ),
    "m0007_judgments": (
        "judgment",
        "INSERT INTO judgment (uuid, payload_sha256, project_id, item_id, annotator_id, assignment_id, guideline_id, "
        "purpose, answer, shown_order, elapsed_ms, revealed_ms, judged_at_us, created_at_us) "
        f"VALUES ('{'1' * 36}', '{'d' * 64}', 1, 1, 1, 1, 1, 'normal', 'yes', '[0]', 1, 1, 1, 1)",
    ),
    "m0008_snapshots": (
        "snapshot",
        "INSERT INTO snapshot (id, hash, project_id, rule, header, created_at_us) "
        f"VALUES (1, '{'e' * 64}', 1, 'majority', '{{}}', 1)",
    ),
    "m0009_runs": (
        "run",
        "INSERT INTO run (id, kind, config, config_hash, inputs, status, started_at_us) "
        f"VALUES ('r', 'score', '{{}}', '{'f' * 64}', '{{}}', 'done', 1)",
    ),
    "m0010_repeats": (
        "assignment",
        "INSERT INTO assignment (project_id, item_id, annotator_id, purpose, state, shown_order, leased_at_us, "
        "expires_at_us) VALUES (1, 1, 1, 'repeat', 'leased', '[0]', 1, 2)",
    ),
    "m0011_owner": ("user", "INSERT INTO user (name, role, created_at_us) VALUES ('eve', 'owner', 1)"),
    "m0012_accounts": (
        "invitation",
        "INSERT INTO invitation (token_sha256, role, created_at_us, expires_at_us) "
        f"VALUES ('{'f' * 64}', 'reviewer', 1, 2)",
    ),
    "m0013_care": (
        "exposure",
        "INSERT INTO exposure (user_id, project_id, day, n_judged, n_revealed, n_too_fast, exposed_ms) "
        "VALUES (1, 1, 1, 1, 0, 0, 900)",
    ),
    "m0014_concept_scores": (
        "concept_score",
        f"INSERT INTO concept_score VALUES (1, '{'a' * 64}', 0.5, 0.1, 'r')",
    ),
}


def test_schema_document_is_what_the_migrations_make() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == describe_schema(), (
        "docs/schema.md is stale: run `python -m storage.schema_doc > docs/schema.md`"
    )


def test_every_migration_has_a_row_in_the_upgrade_test() -> None:
    assert list(ROWS) == migration_names()


@pytest.mark.parametrize("n_applied", range(len(ROWS) + 1))
def test_open_upgrades_a_store_of_every_earlier_version(tmp_path: Path, n_applied: int) -> None:
    names = migration_names()
    connection = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    database = Database(connection, execute_plugins=False)
    if n_applied < len(names):
        migrations.apply(database, stop_before=names[n_applied])
    else:
        migrations.apply(database)
    for name in names[:n_applied]:
        connection.executescript(ROWS[name][1])
    connection.close()
    with Store.open(tmp_path) as store:
        for name in names[:n_applied]:
            assert store.connection.execute(f"SELECT count(*) FROM {ROWS[name][0]}").fetchone()[0] >= 1
        new = Database(memory=True)
        migrations.apply(new)
        assert guards(store.database) == guards(new)
        assert store.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_admins_of_an_older_store_are_owners_and_everything_of_theirs_is_kept(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    migrations.apply(Database(connection, execute_plugins=False), stop_before="m0011_owner")
    for name, (_, statement) in ROWS.items():
        if name < "m0011":
            connection.executescript(statement)
    connection.execute(
        "INSERT INTO user (name, role, details, password_hash, disabled_at_us, created_at_us) "
        "VALUES ('bo', 'admin', '{\"a\":1}', 'hash', 5, 2)"
    )
    session = "INSERT INTO session (user_id, token_sha256, created_at_us, expires_at_us) VALUES (2, ?, 1, 2)"
    connection.execute(session, ("a" * 64,))
    before = connection.execute("SELECT * FROM user ORDER BY id").fetchall()
    connection.close()
    with Store.open(tmp_path) as store:
        after = store.connection.execute("SELECT * FROM user ORDER BY id").fetchall()
        assert after == [tuple("owner" if value == "admin" else value for value in row) for row in before]
        assert store.connection.execute("PRAGMA foreign_keys").fetchone() == (1,)
        assert store.connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert store.get_annotator("bo").role == "owner"
        with pytest.raises(sqlite3.IntegrityError):
            store.connection.execute("UPDATE user SET role = 'admin' WHERE id = 2")


def test_open_refuses_a_store_of_a_newer_version_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('hfi-store', 'm9999_future', '')"
        )
    with pytest.raises(StoreTooNewError, match=r"newer version.*m9999_future.*Upgrade HFI"):
        Store.open(tmp_path)


def test_open_refuses_a_store_that_lost_a_guard(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("DROP TRIGGER judgment_no_update")
    with pytest.raises(StoreDamagedError, match="lost a trigger"):
        Store.open(tmp_path)


def test_open_names_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"not a database at all, but long enough to be read as one" * 30)
    with pytest.raises(StoreDamagedError, match="not a readable SQLite database"):
        Store.open(tmp_path)


def test_open_names_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Exception, match="file") as caught:
        Store.open(tmp_path / "file" / "store")
    assert "Traceback" not in str(caught.value)
    assert type(caught.value).__name__ != "NotADirectoryError"


def test_read_only_file_is_named(store: Store) -> None:
    store.connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreReadOnlyError, match="write permission"):
        store.add_annotator("new")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE judgment SET answer = 'no' WHERE id = 1",
        "DELETE FROM judgment WHERE id = 1",
        "INSERT OR REPLACE INTO judgment SELECT * FROM judgment WHERE id = 1",
        "REPLACE INTO judgment SELECT * FROM judgment WHERE id = 1",
        "UPDATE OR REPLACE judgment SET id = 2 WHERE id = 1",
        "UPDATE audit SET actor = 'x' WHERE id = 1",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE id = 1",
        "UPDATE guideline SET text = 'other'",
        "UPDATE generation SET prompt = 'other'",
        f"UPDATE image SET sha256 = '{'0' * 64}' WHERE rowid = 1",
        "DELETE FROM image",
        "DELETE FROM user",
        "INSERT OR REPLACE INTO user SELECT * FROM user WHERE id = 1",
        "REPLACE INTO user (name, role, created_at_us) VALUES ('ADA', 'owner', 1)",
        "DELETE FROM assignment",
        "UPDATE item_image SET position = 3",
        "INSERT INTO judgment SELECT id + 1000, 'x' || substr(uuid, 2), payload_sha256, project_id, item_id, 2, "
        "assignment_id, guideline_id, purpose, answer, categories, score, ranks, reason, note, shown_order, "
        "elapsed_ms, revealed_ms, judged_at_us, created_at_us, NULL FROM judgment WHERE annotator_id = 1 LIMIT 1",
    ],
)
def test_guards_hold_against_any_sqlite_client(tmp_path: Path, statement: str) -> None:
    with build_flag_store(tmp_path) as store:
        judge_all(store, "weapons")
    plain = sqlite3.connect(tmp_path / "store.db")  # no pragmas of ours
    before = plain.execute("SELECT * FROM judgment").fetchall()
    with pytest.raises(sqlite3.IntegrityError):
        plain.execute(statement)
    plain.rollback()
    assert plain.execute("SELECT * FROM judgment").fetchall() == before
    plain.close()


def test_two_leases_of_one_slot_are_refused_by_the_database(store: Store) -> None:
    lease = store.claim("weapons", "ada", 1)[0]
    copy = (
        "INSERT INTO assignment (project_id, item_id, annotator_id, purpose, slot, state, shown_order, leased_at_us, "
        "expires_at_us) SELECT project_id, item_id, ?, purpose, ?, state, shown_order, leased_at_us, expires_at_us "
        "FROM assignment WHERE id = ?"
    )
    with pytest.raises(sqlite3.IntegrityError):
        store.connection.execute(copy, (2, 0, lease.id))  # another annotator, the same slot
    with pytest.raises(sqlite3.IntegrityError):
        store.connection.execute(copy, (1, 1, lease.id))  # the same annotator, another slot


def test_a_folder_may_be_named_by_a_string(tmp_path: Path) -> None:
    made = build_flag_store(tmp_path / "store")
    assert Store(str(tmp_path / "store")).list_projects() == made.list_projects() != []
