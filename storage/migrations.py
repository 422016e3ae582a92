"""The schema: append-only numbered migrations in raw DDL, each applied once and never edited after a release.

Raw DDL only: rebuilding a guarded table through a table-transform helper would silently drop its triggers and
generated columns, so ``schema.assert_guards`` checks at every opening that each of them is still there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.ddl import APPLICATION_ID, MIGRATION_SET, migrations
from storage.ddl import forbid as _forbid
from storage.ddl import migration as _migration
from storage.ddl import run_script as _run_script

if TYPE_CHECKING:
    from sqlite_utils import Database

__all__ = ["APPLICATION_ID", "MIGRATION_SET", "migrations"]


@_migration
def m0001_meta_and_audit(db: Database) -> None:
    """Facts about the store, and the hash-chained record of who did what."""
    _run_script(
        db,
        """
    CREATE TABLE meta (
      key TEXT PRIMARY KEY,
      value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE audit (
      id INTEGER PRIMARY KEY,
      at_us INTEGER NOT NULL,
      actor TEXT NOT NULL,
      action TEXT NOT NULL,
      subject TEXT NOT NULL,
      details TEXT NOT NULL,
      previous_hash TEXT NOT NULL,
      hash TEXT NOT NULL UNIQUE
    ) STRICT;
    """
        + _forbid("audit"),
    )


@_migration
def m0002_people(db: Database) -> None:
    """Users (annotators are pseudonymous), sessions and tokens (only their hashes)."""
    _run_script(
        db,
        """
    CREATE TABLE user (
      id INTEGER PRIMARY KEY,
      name TEXT NOT NULL UNIQUE COLLATE NOCASE CHECK (length(name) BETWEEN 1 AND 40),
      role TEXT NOT NULL CHECK (role IN ('annotator', 'reviewer', 'researcher', 'admin')),
      is_simulated INTEGER NOT NULL DEFAULT 0 CHECK (is_simulated IN (0, 1)),
      is_imported INTEGER NOT NULL DEFAULT 0 CHECK (is_imported IN (0, 1)),
      details TEXT NOT NULL DEFAULT '{}',
      password_hash TEXT,
      disabled_at_us INTEGER,
      withdrawn_at_us INTEGER,
      created_at_us INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE session (
      id INTEGER PRIMARY KEY,
      user_id INTEGER NOT NULL REFERENCES user (id),
      token_sha256 TEXT NOT NULL UNIQUE CHECK (length(token_sha256) = 64),
      created_at_us INTEGER NOT NULL,
      expires_at_us INTEGER NOT NULL,
      revoked_at_us INTEGER
    ) STRICT;
    CREATE TABLE api_token (
      id INTEGER PRIMARY KEY,
      user_id INTEGER NOT NULL REFERENCES user (id),
      name TEXT NOT NULL,
      token_sha256 TEXT NOT NULL UNIQUE CHECK (length(token_sha256) = 64),
      created_at_us INTEGER NOT NULL,
      expires_at_us INTEGER,
      revoked_at_us INTEGER
    ) STRICT;
    CREATE TRIGGER user_no_delete BEFORE DELETE ON user
    BEGIN SELECT RAISE(ABORT, 'users are never deleted: disable or withdraw them'); END;
    """,
    )


@_migration
def m0003_projects(db: Database) -> None:
    """Projects, their categories and guideline versions, and what each annotator agreed to or declined."""
    _run_script(
        db,
        """
    CREATE TABLE project (
      id INTEGER PRIMARY KEY,
      name TEXT NOT NULL UNIQUE COLLATE NOCASE CHECK (length(name) BETWEEN 1 AND 40),
      kind TEXT NOT NULL CHECK (kind IN ('flag', 'score', 'pair', 'ranking')),
      annotators_per_item INTEGER NOT NULL CHECK (annotators_per_item BETWEEN 1 AND 1000),
      annotators_max INTEGER NOT NULL CHECK (annotators_max >= annotators_per_item),
      posterior_threshold REAL NOT NULL CHECK (posterior_threshold BETWEEN 0.5 AND 1),
      gold_fraction REAL NOT NULL CHECK (gold_fraction BETWEEN 0 AND 0.9),
      repeat_fraction REAL NOT NULL CHECK (repeat_fraction BETWEEN 0 AND 0.9),
      lease_seconds REAL NOT NULL CHECK (lease_seconds > 0),
      is_sensitive INTEGER NOT NULL CHECK (is_sensitive IN (0, 1)),
      is_demo INTEGER NOT NULL CHECK (is_demo IN (0, 1)),
      queue_tail INTEGER NOT NULL DEFAULT 0,
      created_at_us INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE category (
      project_id INTEGER NOT NULL REFERENCES project (id),
      name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 40),
      position INTEGER NOT NULL,
      PRIMARY KEY (project_id, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE guideline (
      id INTEGER PRIMARY KEY,
      project_id INTEGER NOT NULL REFERENCES project (id),
      version INTEGER NOT NULL CHECK (version >= 1),
      text TEXT NOT NULL,
      created_at_us INTEGER NOT NULL,
      UNIQUE (project_id, version)
    ) STRICT;
    CREATE TABLE consent (
      id INTEGER PRIMARY KEY,
      user_id INTEGER NOT NULL REFERENCES user (id),
      project_id INTEGER NOT NULL REFERENCES project (id),
      guideline_id INTEGER NOT NULL REFERENCES guideline (id),
      wording TEXT NOT NULL,
      given_at_us INTEGER NOT NULL,
      withdrawn_at_us INTEGER
    ) STRICT;
    CREATE INDEX consent_by_user ON consent (user_id, project_id);
    CREATE TABLE opt_out (
      user_id INTEGER NOT NULL REFERENCES user (id),
      project_id INTEGER NOT NULL REFERENCES project (id),
      category TEXT NOT NULL,
      created_at_us INTEGER NOT NULL,
      PRIMARY KEY (user_id, project_id, category)
    ) STRICT, WITHOUT ROWID;
    """
        + _forbid("guideline"),
    )


@_migration
def m0004_images(db: Database) -> None:
    """Content-addressed pictures, and everything needed to make a generated one again."""
    _run_script(
        db,
        """
    CREATE TABLE image (
      sha256 TEXT PRIMARY KEY CHECK (length(sha256) = 64),
      pixel_sha256 TEXT NOT NULL UNIQUE CHECK (length(pixel_sha256) = 64),
      width INTEGER NOT NULL CHECK (width > 0),
      height INTEGER NOT NULL CHECK (height > 0),
      size_bytes INTEGER NOT NULL CHECK (size_bytes > 0),
      quarantined_at_us INTEGER,
      quarantine_reason TEXT NOT NULL DEFAULT '',
      created_at_us INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE generation (
      id INTEGER PRIMARY KEY,
      project_id INTEGER NOT NULL REFERENCES project (id),
      image_sha256 TEXT NOT NULL REFERENCES image (sha256),
      request_sha256 TEXT NOT NULL CHECK (length(request_sha256) = 64),
      prompt TEXT NOT NULL,
      negative_prompt TEXT NOT NULL,
      seed INTEGER NOT NULL,
      scheduler TEXT NOT NULL,
      num_inference_steps INTEGER NOT NULL,
      guidance_scale REAL NOT NULL,
      width INTEGER NOT NULL,
      height INTEGER NOT NULL,
      model_id TEXT NOT NULL,
      model_sha256 TEXT NOT NULL,
      guard TEXT NOT NULL,
      role TEXT NOT NULL,
      versions TEXT NOT NULL,
      extra TEXT NOT NULL,
      created_at_us INTEGER NOT NULL,
      UNIQUE (project_id, request_sha256)
    ) STRICT;
    CREATE INDEX generation_by_image ON generation (image_sha256);
    """
        + _forbid("image", update_of="sha256, pixel_sha256, width, height, size_bytes", key="sha256")
        + _forbid("generation"),
    )


@_migration
def m0005_items(db: Database) -> None:
    """What is judged, in queue order, and the items whose answer is known."""
    _run_script(
        db,
        """
    CREATE TABLE item (
      id INTEGER PRIMARY KEY,
      project_id INTEGER NOT NULL REFERENCES project (id),
      key_sha256 TEXT NOT NULL CHECK (length(key_sha256) = 64),
      prompt TEXT NOT NULL,
      prompt_group TEXT NOT NULL,
      category_hint TEXT NOT NULL,
      status TEXT NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'done', 'adjudicate', 'hidden')),
      is_gold INTEGER NOT NULL DEFAULT 0 CHECK (is_gold IN (0, 1)),
      target_judgments INTEGER NOT NULL CHECK (target_judgments >= 1),
      n_judgments INTEGER NOT NULL DEFAULT 0 CHECK (n_judgments >= 0),
      n_leased INTEGER NOT NULL DEFAULT 0 CHECK (n_leased >= 0),
      n_positive INTEGER NOT NULL DEFAULT 0 CHECK (n_positive >= 0),
      n_negative INTEGER NOT NULL DEFAULT 0 CHECK (n_negative >= 0),
      uncertainty REAL,
      tier INTEGER NOT NULL CHECK (tier BETWEEN 1 AND 4),
      position INTEGER NOT NULL,
      created_at_us INTEGER NOT NULL,
      is_available INTEGER NOT NULL GENERATED ALWAYS AS
        (status = 'open' AND is_gold = 0 AND n_judgments + n_leased < target_judgments) VIRTUAL,
      UNIQUE (project_id, key_sha256)
    ) STRICT;
    CREATE INDEX item_queue ON item (project_id, tier, position) WHERE is_available = 1;
    CREATE TABLE item_image (
      item_id INTEGER NOT NULL REFERENCES item (id),
      position INTEGER NOT NULL CHECK (position BETWEEN 0 AND 8),
      image_sha256 TEXT NOT NULL REFERENCES image (sha256),
      PRIMARY KEY (item_id, position)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX item_image_by_image ON item_image (image_sha256);
    CREATE TABLE gold (
      item_id INTEGER PRIMARY KEY REFERENCES item (id),
      project_id INTEGER NOT NULL REFERENCES project (id),
      answer TEXT NOT NULL,
      expected TEXT NOT NULL DEFAULT '{}',
      explanation TEXT NOT NULL,
      is_training INTEGER NOT NULL CHECK (is_training IN (0, 1)),
      created_at_us INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX gold_by_project ON gold (project_id, is_training);
    """
        + _forbid("item_image", key="item_id, position"),
    )


@_migration
def m0006_assignments(db: Database) -> None:
    """Leased slots. The two unique indexes are what makes a double lease impossible, whatever the code does."""
    _run_script(
        db,
        """
    CREATE TABLE assignment (
      id INTEGER PRIMARY KEY,
      project_id INTEGER NOT NULL REFERENCES project (id),
      item_id INTEGER NOT NULL REFERENCES item (id),
      annotator_id INTEGER NOT NULL REFERENCES user (id),
      purpose TEXT NOT NULL CHECK (purpose IN ('normal', 'gold', 'training', 'repeat', 'adjudicate')),
      slot INTEGER CHECK (slot >= 0),
      state TEXT NOT NULL CHECK (state IN ('leased', 'done', 'expired', 'released')),
      shown_order TEXT NOT NULL,
      leased_at_us INTEGER NOT NULL,
      expires_at_us INTEGER NOT NULL,
      finished_at_us INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX assignment_one_lease_a_slot ON assignment (item_id, slot)
      WHERE slot IS NOT NULL AND state IN ('leased', 'done');
    CREATE UNIQUE INDEX assignment_one_judging_an_annotator ON assignment (item_id, annotator_id)
      WHERE purpose <> 'repeat' AND state IN ('leased', 'done');
    CREATE INDEX assignment_by_expiry ON assignment (project_id, expires_at_us) WHERE state = 'leased';
    CREATE INDEX assignment_by_annotator ON assignment (annotator_id, project_id, id);
    CREATE TABLE queue_state (
      project_id INTEGER NOT NULL REFERENCES project (id),
      annotator_id INTEGER NOT NULL REFERENCES user (id),
      n_claimed INTEGER NOT NULL DEFAULT 0,
      last_prompt_group TEXT NOT NULL DEFAULT '',
      cursor_1 INTEGER NOT NULL DEFAULT 0,
      cursor_2 INTEGER NOT NULL DEFAULT 0,
      cursor_3 INTEGER NOT NULL DEFAULT 0,
      cursor_4 INTEGER NOT NULL DEFAULT 0,
      PRIMARY KEY (project_id, annotator_id)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER assignment_no_delete BEFORE DELETE ON assignment
    BEGIN SELECT RAISE(ABORT, 'assignments are never deleted: they expire or are released'); END;
    """,
    )


@_migration
def m0007_judgments(db: Database) -> None:
    """What people said: append-only; an undo is a new row that supersedes an old one."""
    _run_script(
        db,
        """
    CREATE TABLE judgment (
      id INTEGER PRIMARY KEY,
      uuid TEXT NOT NULL UNIQUE CHECK (length(uuid) = 36),
      payload_sha256 TEXT NOT NULL CHECK (length(payload_sha256) = 64),
      project_id INTEGER NOT NULL REFERENCES project (id),
      item_id INTEGER NOT NULL REFERENCES item (id),
      annotator_id INTEGER NOT NULL REFERENCES user (id),
      assignment_id INTEGER REFERENCES assignment (id),
      guideline_id INTEGER NOT NULL REFERENCES guideline (id),
      purpose TEXT NOT NULL,
      answer TEXT NOT NULL CHECK (answer IN ('yes', 'no', 'scored', 'first', 'second', 'tie', 'both_fine',
        'both_bad', 'ranked', 'none', 'unsure', 'skip', 'broken', 'hide_kind', 'retracted')),
      categories TEXT NOT NULL DEFAULT '[]',
      score INTEGER CHECK (score BETWEEN 1 AND 5),
      ranks TEXT NOT NULL DEFAULT '[]',
      reason TEXT NOT NULL DEFAULT '',
      note TEXT NOT NULL DEFAULT '',
      shown_order TEXT NOT NULL,
      elapsed_ms INTEGER NOT NULL CHECK (elapsed_ms >= 0),
      revealed_ms INTEGER NOT NULL CHECK (revealed_ms >= 0),
      judged_at_us INTEGER NOT NULL,
      created_at_us INTEGER NOT NULL,
      supersedes_id INTEGER REFERENCES judgment (id),
      CHECK ((answer = 'scored') = (score IS NOT NULL)),
      CHECK (answer <> 'retracted' OR supersedes_id IS NOT NULL)
    ) STRICT;
    CREATE INDEX judgment_by_item ON judgment (project_id, item_id);
    CREATE INDEX judgment_by_annotator ON judgment (annotator_id, project_id, id);
    CREATE UNIQUE INDEX judgment_superseded_once ON judgment (supersedes_id) WHERE supersedes_id IS NOT NULL;
    CREATE TRIGGER judgment_own_lease BEFORE INSERT ON judgment
    WHEN NEW.assignment_id IS NOT NULL AND NOT EXISTS (
      SELECT 1 FROM assignment a WHERE a.id = NEW.assignment_id
      AND a.annotator_id = NEW.annotator_id AND a.item_id = NEW.item_id)
    BEGIN SELECT RAISE(ABORT, 'a judgment answers a lease of its own annotator on its own item'); END;
    CREATE TRIGGER judgment_own_supersedes BEFORE INSERT ON judgment
    WHEN NEW.supersedes_id IS NOT NULL AND NOT EXISTS (
      SELECT 1 FROM judgment j WHERE j.id = NEW.supersedes_id
      AND j.annotator_id = NEW.annotator_id AND j.item_id = NEW.item_id)
    BEGIN SELECT RAISE(ABORT, 'a judgment supersedes only its own annotator''s judgment of the same item'); END;
    CREATE VIEW current_judgment AS
      SELECT j.* FROM judgment j
      WHERE j.answer <> 'retracted'
      AND NOT EXISTS (SELECT 1 FROM judgment later WHERE later.supersedes_id = j.id);
    """
        + _forbid("judgment").replace("WHERE id = NEW.id)", "WHERE id = NEW.id OR uuid = NEW.uuid)"),
    )


@_migration
def m0008_snapshots(db: Database) -> None:
    """Frozen sets of judgments. Rows go in first, the hashed header last; from then on nothing can be added."""
    sealed = "".join(
        f"""
    CREATE TRIGGER {table}_sealed BEFORE INSERT ON {table}
    WHEN EXISTS (SELECT 1 FROM snapshot WHERE id = NEW.snapshot_id)
    BEGIN SELECT RAISE(ABORT, 'the snapshot is sealed: make a new one'); END;
    """
        for table in ("snapshot_judgment", "snapshot_label")
    )
    _run_script(
        db,
        """
    CREATE TABLE snapshot (
      id INTEGER PRIMARY KEY,
      hash TEXT NOT NULL UNIQUE CHECK (length(hash) = 64),
      project_id INTEGER NOT NULL REFERENCES project (id),
      parent_hash TEXT NOT NULL DEFAULT '',
      rule TEXT NOT NULL,
      header TEXT NOT NULL,
      created_at_us INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE snapshot_judgment (
      snapshot_id INTEGER NOT NULL REFERENCES snapshot (id) DEFERRABLE INITIALLY DEFERRED,
      judgment_id INTEGER NOT NULL REFERENCES judgment (id),
      PRIMARY KEY (snapshot_id, judgment_id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE snapshot_label (
      snapshot_id INTEGER NOT NULL REFERENCES snapshot (id) DEFERRABLE INITIALLY DEFERRED,
      item_id INTEGER NOT NULL REFERENCES item (id),
      n_judgments INTEGER NOT NULL,
      p_positive REAL,
      answer TEXT NOT NULL,
      categories TEXT NOT NULL,
      utilities TEXT NOT NULL,
      PRIMARY KEY (snapshot_id, item_id)
    ) STRICT, WITHOUT ROWID;
    """
        + sealed
        + _forbid("snapshot", key="id")
        + _forbid("snapshot_judgment", key="snapshot_id, judgment_id")
        + _forbid("snapshot_label", key="snapshot_id, item_id"),
    )


@_migration
def m0009_runs(db: Database) -> None:
    """Executions of jobs and the files they made; each names the snapshot it was made from."""
    _run_script(
        db,
        """
    CREATE TABLE run (
      id TEXT PRIMARY KEY,
      kind TEXT NOT NULL,
      config TEXT NOT NULL,
      config_hash TEXT NOT NULL CHECK (length(config_hash) = 64),
      snapshot_hash TEXT REFERENCES snapshot (hash),
      inputs TEXT NOT NULL,
      status TEXT NOT NULL CHECK (status IN ('running', 'done', 'failed', 'cancelled')),
      metrics TEXT NOT NULL DEFAULT '{}',
      seconds REAL,
      peak_memory_mib REAL,
      started_at_us INTEGER NOT NULL,
      finished_at_us INTEGER
    ) STRICT;
    CREATE INDEX run_by_config ON run (kind, config_hash, status);
    CREATE TABLE artifact (
      id INTEGER PRIMARY KEY,
      run_id TEXT NOT NULL REFERENCES run (id),
      name TEXT NOT NULL,
      kind TEXT NOT NULL,
      path TEXT NOT NULL,
      sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
      size_bytes INTEGER NOT NULL,
      details TEXT NOT NULL,
      created_at_us INTEGER NOT NULL,
      UNIQUE (run_id, name)
    ) STRICT;
    """
        + _forbid("artifact"),
    )


@_migration
def m0010_repeats(db: Database) -> None:
    """Find out at once whether an annotator was asked about an item again; it took a walk over all they judged."""
    _run_script(
        db,
        """
    CREATE UNIQUE INDEX assignment_one_repeat ON assignment (item_id, annotator_id)
      WHERE purpose = 'repeat' AND state IN ('leased', 'done');
    """,
    )


@_migration
def m0011_owner(db: Database) -> None:
    """The role admin becomes owner, in the rule and in every user; no client can replace a user any more.

    A CHECK can't be altered, so the table is made anew. Foreign keys are only counted until the commit: dropping
    the table counts every row that refers to a user as an orphan, putting the users back counts them home again.
    The audit keeps the old word in entries of before: it is a record of what happened.
    """
    _run_script(
        db,
        """
    PRAGMA defer_foreign_keys = ON;
    CREATE TEMP TABLE user_before AS SELECT * FROM main.user;
    DROP TABLE main.user;
    CREATE TABLE user (
      id INTEGER PRIMARY KEY,
      name TEXT NOT NULL UNIQUE COLLATE NOCASE CHECK (length(name) BETWEEN 1 AND 40),
      role TEXT NOT NULL CHECK (role IN ('annotator', 'reviewer', 'researcher', 'owner')),
      is_simulated INTEGER NOT NULL DEFAULT 0 CHECK (is_simulated IN (0, 1)),
      is_imported INTEGER NOT NULL DEFAULT 0 CHECK (is_imported IN (0, 1)),
      details TEXT NOT NULL DEFAULT '{}',
      password_hash TEXT,
      disabled_at_us INTEGER,
      withdrawn_at_us INTEGER,
      created_at_us INTEGER NOT NULL
    ) STRICT;
    INSERT INTO user (id, name, role, is_simulated, is_imported, details, password_hash, disabled_at_us,
      withdrawn_at_us, created_at_us)
    SELECT id, name, CASE role WHEN 'admin' THEN 'owner' ELSE role END, is_simulated, is_imported, details,
      password_hash, disabled_at_us, withdrawn_at_us, created_at_us FROM user_before ORDER BY id;
    DROP TABLE temp.user_before;
    CREATE TRIGGER user_no_delete BEFORE DELETE ON user
    BEGIN SELECT RAISE(ABORT, 'users are never deleted: disable or withdraw them'); END;
    CREATE TRIGGER user_no_replace BEFORE INSERT ON user
    WHEN EXISTS (SELECT 1 FROM user WHERE id = NEW.id OR name = NEW.name)
    BEGIN SELECT RAISE(ABORT, 'users are append-only: a name or number is never used twice'); END;
    """,
    )


from storage import migrations_accounts, migrations_gallery  # noqa: E402, F401  register m0012 and later, in order
