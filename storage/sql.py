"""Every SQL statement the store runs, by name; the schema itself is in ``migrations``. Values are always bound."""

from __future__ import annotations

# --- meta and audit ---------------------------------------------------------------------------------------------

META_GET = "SELECT value FROM meta WHERE key = ?"
META_PUT = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
AUDIT_LAST = "SELECT hash FROM audit ORDER BY id DESC LIMIT 1"
AUDIT_INSERT = """
INSERT INTO audit (at_us, actor, action, subject, details, previous_hash, hash) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
AUDIT_ALL = "SELECT id, at_us, actor, action, subject, details, previous_hash, hash FROM audit ORDER BY id"
AUDIT_NEWEST = "SELECT id, at_us, actor, action, subject, details, hash FROM audit ORDER BY id DESC LIMIT ?"

# --- people -----------------------------------------------------------------------------------------------------

_USER = "SELECT id, name, role, is_simulated, disabled_at_us, details, created_at_us FROM user"
USER_BY_NAME = f"{_USER} WHERE name = ?"
USER_ALL = f"{_USER} ORDER BY id"
USER_INSERT = """
INSERT INTO user (name, role, is_simulated, is_imported, details, created_at_us) VALUES (?, ?, ?, ?, ?, ?)
"""
USER_DISABLE = "UPDATE user SET disabled_at_us = coalesce(disabled_at_us, ?) WHERE id = ?"
USER_WITHDRAW = """
UPDATE user SET withdrawn_at_us = coalesce(withdrawn_at_us, ?), disabled_at_us = coalesce(disabled_at_us, ?)
WHERE id = ?
"""

# --- projects ---------------------------------------------------------------------------------------------------

_PROJECT = """
SELECT id, name, kind, annotators_per_item, annotators_max, posterior_threshold, gold_fraction, repeat_fraction,
  lease_seconds, is_sensitive, is_demo, created_at_us FROM project
"""
PROJECT_BY_NAME = f"{_PROJECT} WHERE name = ?"
PROJECT_ALL = f"{_PROJECT} ORDER BY id"
PROJECT_INSERT = """
INSERT INTO project (name, kind, annotators_per_item, annotators_max, posterior_threshold, gold_fraction,
  repeat_fraction, lease_seconds, is_sensitive, is_demo, created_at_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
PROJECT_LEASE_SECONDS = "SELECT lease_seconds FROM project WHERE id = ?"
GUIDELINE_INSERT = "INSERT INTO guideline (project_id, version, text, created_at_us) VALUES (?, ?, ?, ?)"
GUIDELINE_NEWEST = "SELECT id, version, text FROM guideline WHERE project_id = ? ORDER BY version DESC LIMIT 1"
GUIDELINE_IN_FORCE = """
SELECT g.id, c.name FROM guideline g LEFT JOIN category c ON c.project_id = g.project_id
WHERE g.id = (SELECT id FROM guideline WHERE project_id = ? ORDER BY version DESC LIMIT 1) ORDER BY c.position
"""
GUIDELINE_IDS = "SELECT id, project_id, version FROM guideline"
GUIDELINE_ALL = "SELECT version, text FROM guideline WHERE project_id = ? ORDER BY version"
CATEGORY_INSERT = "INSERT INTO category (project_id, name, position) VALUES (?, ?, ?)"
CATEGORY_NAMES = "SELECT name FROM category WHERE project_id = ? ORDER BY position"
CONSENT_INSERT = "INSERT INTO consent (user_id, project_id, guideline_id, wording, given_at_us) VALUES (?, ?, ?, ?, ?)"
CONSENT_FIND = "SELECT 1 FROM consent WHERE user_id = ? AND project_id = ? AND withdrawn_at_us IS NULL"
CONSENT_WITHDRAW = """
UPDATE consent SET withdrawn_at_us = ? WHERE user_id = ? AND project_id = ? AND withdrawn_at_us IS NULL
"""
OPT_OUT_INSERT = "INSERT OR IGNORE INTO opt_out (user_id, project_id, category, created_at_us) VALUES (?, ?, ?, ?)"
OPT_OUT_DELETE = "DELETE FROM opt_out WHERE user_id = ? AND project_id = ? AND category = ?"
OPT_OUT_ALL = "SELECT category FROM opt_out WHERE user_id = ? AND project_id = ? ORDER BY category"

# --- images and generations -------------------------------------------------------------------------------------

_IMAGE = "SELECT sha256, width, height, size_bytes, quarantined_at_us, created_at_us FROM image"
IMAGE_BY_SHA256 = f"{_IMAGE} WHERE sha256 = ?"
IMAGE_BY_PIXELS = f"{_IMAGE} WHERE pixel_sha256 = ?"
IMAGE_ALL = f"{_IMAGE} ORDER BY rowid"
IMAGE_INSERT = """
INSERT INTO image (sha256, pixel_sha256, width, height, size_bytes, created_at_us) VALUES (?, ?, ?, ?, ?, ?)
"""
IMAGE_QUARANTINE = "UPDATE image SET quarantined_at_us = ?, quarantine_reason = ? WHERE sha256 = ?"
IMAGE_RELEASE = "UPDATE image SET quarantined_at_us = NULL, quarantine_reason = '' WHERE sha256 = ?"
_GENERATION = """
SELECT g.id, g.project_id, g.image_sha256, g.request_sha256, g.prompt, g.negative_prompt, g.seed, g.scheduler,
  g.num_inference_steps, g.guidance_scale, g.width, g.height, g.model_id, g.model_sha256, g.guard, g.role,
  g.versions, g.extra, g.created_at_us FROM generation g
"""
GENERATION_FIND = f"{_GENERATION} WHERE g.project_id = ? AND g.request_sha256 = ?"
GENERATION_ALL = f"""{_GENERATION} JOIN image i ON i.sha256 = g.image_sha256
WHERE g.project_id = :project_id AND (:all OR i.quarantined_at_us IS NULL) ORDER BY g.id
"""
GENERATION_INSERT = """
INSERT INTO generation (project_id, image_sha256, request_sha256, prompt, negative_prompt, seed, scheduler,
  num_inference_steps, guidance_scale, width, height, model_id, model_sha256, guard, role, versions, extra,
  created_at_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
GENERATION_OF_IMAGE = """
SELECT id, prompt, seed, role FROM generation WHERE project_id = ? AND image_sha256 = ? ORDER BY id LIMIT 1
"""

# --- items and gold ---------------------------------------------------------------------------------------------

_ITEM = """
SELECT i.id, i.project_id, p.kind, i.prompt, i.prompt_group, i.category_hint, i.status, i.is_gold,
  i.target_judgments, i.n_judgments, i.n_leased FROM item i JOIN project p ON p.id = i.project_id
"""
ITEM_BY_ID = f"{_ITEM} WHERE i.id = ?"
ITEM_BY_KEY = f"{_ITEM} WHERE i.project_id = ? AND i.key_sha256 = ?"
ITEM_ALL = f"{_ITEM} WHERE i.project_id = :project_id AND (:status IS NULL OR i.status = :status) ORDER BY i.id"
ITEM_INSERT = """
INSERT INTO item (project_id, key_sha256, prompt, prompt_group, category_hint, target_judgments, tier, position,
  created_at_us) VALUES (?, ?, ?, ?, ?, ?, 4, ?, ?)
"""
ITEM_IMAGE_INSERT = "INSERT INTO item_image (item_id, position, image_sha256) VALUES (?, ?, ?)"
ITEM_IMAGES = "SELECT image_sha256 FROM item_image WHERE item_id = ? ORDER BY position"
ITEM_IMAGES_ALL = """
SELECT m.item_id, m.image_sha256 FROM item_image m JOIN item i ON i.id = m.item_id
WHERE i.project_id = ? ORDER BY m.item_id, m.position
"""
ITEM_HIDE_BY_IMAGE = """
UPDATE item SET status = 'hidden' WHERE id IN (SELECT item_id FROM item_image WHERE image_sha256 = ?)
"""
ITEM_SHOW_BY_IMAGE = """
UPDATE item SET status = CASE WHEN n_judgments >= target_judgments THEN 'done' ELSE 'open' END
WHERE status = 'hidden' AND id IN (SELECT item_id FROM item_image WHERE image_sha256 = ?)
AND NOT EXISTS (SELECT 1 FROM item_image m JOIN image x ON x.sha256 = m.image_sha256
  WHERE m.item_id = item.id AND x.quarantined_at_us IS NOT NULL)
"""
ITEM_SET_UNCERTAINTY = "UPDATE item SET uncertainty = ?, tier = ?, position = ? WHERE id = ? AND tier IN (3, 4)"
ITEM_MAKE_GOLD = "UPDATE item SET is_gold = 1 WHERE id = ?"
ITEM_COUNTS = """
SELECT status, count(*), sum(is_gold), sum(n_judgments), sum(n_leased) FROM item WHERE project_id = ? GROUP BY status
"""
QUEUE_TAIL = "SELECT queue_tail FROM project WHERE id = ?"
QUEUE_TAIL_ADVANCE = "UPDATE project SET queue_tail = queue_tail + ? WHERE id = ? RETURNING queue_tail"
GOLD_INSERT = """
INSERT INTO gold (item_id, project_id, answer, expected, explanation, is_training, created_at_us)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""
GOLD_BY_ITEM = "SELECT answer, expected, explanation, is_training FROM gold WHERE item_id = ?"
GOLD_ALL = "SELECT item_id, answer, expected FROM gold WHERE project_id = ? ORDER BY item_id"

# --- assignments ------------------------------------------------------------------------------------------------

LEASES_EXPIRED = """
SELECT id, item_id, slot FROM assignment WHERE project_id = ? AND state = 'leased' AND expires_at_us <= ?
"""
ASSIGNMENT_EXPIRE = "UPDATE assignment SET state = ?, finished_at_us = ? WHERE id = ? AND state = 'leased'"
ITEM_LEASE_ENDED = "UPDATE item SET n_leased = n_leased - 1, tier = 1, position = ? WHERE id = ?"
ITEM_LEASED = "UPDATE item SET n_leased = n_leased + 1 WHERE id = ?"
QUEUE_STATE_GET = """
SELECT n_claimed, last_prompt_group, cursor_1, cursor_2, cursor_3, cursor_4 FROM queue_state
WHERE project_id = ? AND annotator_id = ?
"""
QUEUE_STATE_PUT = """
INSERT OR REPLACE INTO queue_state (n_claimed, last_prompt_group, cursor_1, cursor_2, cursor_3, cursor_4,
  project_id, annotator_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
QUEUE_CURSORS_RESET = """
UPDATE queue_state SET cursor_1 = 0, cursor_2 = 0, cursor_3 = 0, cursor_4 = 0
WHERE project_id = ? AND annotator_id = ?
"""
QUEUE_CANDIDATES = """
SELECT i.id, i.position, i.prompt_group FROM item i
WHERE i.project_id = :project_id AND i.is_available = 1 AND i.tier = :tier AND i.position > :cursor
AND NOT EXISTS (SELECT 1 FROM assignment a WHERE a.item_id = i.id AND a.annotator_id = :annotator_id
  AND a.purpose <> 'repeat' AND a.state IN ('leased', 'done'))
AND NOT EXISTS (SELECT 1 FROM opt_out o WHERE o.user_id = :annotator_id AND o.project_id = i.project_id
  AND o.category = i.category_hint)
ORDER BY i.position LIMIT :n_rows
"""
GOLD_CANDIDATES = """
SELECT g.item_id, i.prompt_group FROM gold g JOIN item i ON i.id = g.item_id
WHERE g.project_id = :project_id AND g.is_training = :is_training AND i.status <> 'hidden'
AND NOT EXISTS (SELECT 1 FROM assignment a WHERE a.item_id = g.item_id AND a.annotator_id = :annotator_id
  AND a.purpose <> 'repeat' AND a.state IN ('leased', 'done'))
AND NOT EXISTS (SELECT 1 FROM opt_out o WHERE o.user_id = :annotator_id AND o.project_id = g.project_id
  AND o.category = i.category_hint)
ORDER BY g.item_id LIMIT :n_rows
"""
# Repeats ask again about one of the annotator's own answers that lies at least :gap assignments back.
REPEAT_CANDIDATES = """
SELECT a.item_id, i.prompt_group FROM assignment a JOIN item i ON i.id = a.item_id
WHERE a.annotator_id = :annotator_id AND a.project_id = :project_id AND a.state = 'done' AND a.purpose = 'normal'
AND i.status <> 'hidden' AND a.id <= coalesce((SELECT b.id FROM assignment b WHERE b.annotator_id = :annotator_id
  AND b.project_id = :project_id ORDER BY b.id DESC LIMIT 1 OFFSET :gap), -1)
AND NOT EXISTS (SELECT 1 FROM assignment r WHERE r.item_id = a.item_id AND r.annotator_id = a.annotator_id
  AND r.purpose = 'repeat' AND r.state IN ('leased', 'done'))
ORDER BY a.id DESC LIMIT :n_rows
"""
SLOTS_TAKEN = "SELECT slot FROM assignment WHERE item_id = ? AND slot IS NOT NULL AND state IN ('leased', 'done')"
ASSIGNMENT_INSERT = """
INSERT INTO assignment (project_id, item_id, annotator_id, purpose, slot, state, shown_order, leased_at_us,
  expires_at_us) VALUES (?, ?, ?, ?, ?, 'leased', ?, ?, ?)
"""
LEASES_OF_ANNOTATOR = """
SELECT a.id, a.item_id, a.project_id, a.annotator_id, a.purpose, p.kind, i.prompt, a.shown_order, a.leased_at_us,
  a.expires_at_us FROM assignment a JOIN item i ON i.id = a.item_id JOIN project p ON p.id = a.project_id
WHERE a.annotator_id = ? AND a.project_id = ? AND a.state = 'leased' AND a.expires_at_us > ? ORDER BY a.id
"""
ASSIGNMENT_BY_ID = """
SELECT a.id, a.item_id, a.project_id, a.annotator_id, a.purpose, p.kind, i.prompt, a.shown_order, a.leased_at_us,
  a.expires_at_us FROM assignment a JOIN item i ON i.id = a.item_id JOIN project p ON p.id = a.project_id
WHERE a.id = ?
"""
ASSIGNMENT_SLOT = "SELECT slot FROM assignment WHERE id = ?"
ASSIGNMENT_FINISH = "UPDATE assignment SET state = 'done', slot = ?, finished_at_us = ? WHERE id = ?"
ASSIGNMENT_REOPEN = """
UPDATE assignment SET state = 'leased', leased_at_us = ?, expires_at_us = ?, finished_at_us = NULL WHERE id = ?
"""
ASSIGNMENT_RENEW = """
UPDATE assignment SET expires_at_us = ? WHERE annotator_id = ? AND project_id = ? AND state = 'leased'
AND expires_at_us > ?
"""

# --- judgments --------------------------------------------------------------------------------------------------

JUDGMENT_NEXT_ID = "SELECT coalesce(max(id), 0) + 1 FROM judgment"
JUDGMENT_INSERT = """
INSERT INTO judgment (id, uuid, payload_sha256, project_id, item_id, annotator_id, assignment_id, guideline_id, purpose,
  answer, categories, score, ranks, reason, note, shown_order, elapsed_ms, revealed_ms, judged_at_us, created_at_us,
  supersedes_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
JUDGMENT_STORED_VALUES = """
SELECT id, uuid, payload_sha256, project_id, item_id, annotator_id, assignment_id, guideline_id, purpose, answer,
  categories, score, ranks, reason, note, shown_order, elapsed_ms, revealed_ms, judged_at_us, created_at_us,
  supersedes_id FROM judgment WHERE id BETWEEN ? AND ? ORDER BY id
"""
_JUDGMENT_COLUMNS = """
SELECT j.id, j.uuid, j.project_id, j.item_id, j.annotator_id, u.name, j.assignment_id, j.guideline_id, j.purpose,
  p.kind, j.answer, j.categories, j.score, j.ranks, j.reason, j.note, j.shown_order, j.elapsed_ms, j.revealed_ms,
  j.judged_at_us, j.created_at_us, coalesce(old.uuid, '')
"""
_JUDGMENT_JOINS = """
JOIN user u ON u.id = j.annotator_id JOIN project p ON p.id = j.project_id
LEFT JOIN judgment old ON old.id = j.supersedes_id
"""
JUDGMENT_BY_UUID = f"{_JUDGMENT_COLUMNS} FROM judgment j {_JUDGMENT_JOINS} WHERE j.uuid = ?"
JUDGMENT_ALL = f"{_JUDGMENT_COLUMNS} FROM judgment j {_JUDGMENT_JOINS} WHERE j.project_id = ? ORDER BY j.id"
JUDGMENT_CURRENT = f"{_JUDGMENT_COLUMNS} FROM current_judgment j {_JUDGMENT_JOINS} WHERE j.project_id = ? ORDER BY j.id"
JUDGMENT_LATEST = f"""{_JUDGMENT_COLUMNS} FROM current_judgment j {_JUDGMENT_JOINS}
WHERE j.annotator_id = ? AND j.project_id = ? ORDER BY j.id DESC LIMIT ?
"""
JUDGMENT_PAYLOAD = "SELECT payload_sha256 FROM judgment WHERE uuid = ?"
JUDGMENT_PAYLOADS = "SELECT uuid, payload_sha256 FROM judgment WHERE uuid IN (SELECT value FROM json_each(?))"
JUDGMENT_SUPERSEDER = "SELECT uuid FROM judgment WHERE supersedes_id = ?"
JUDGMENT_IDS_BY_UUID = (
    "SELECT id, annotator_id, item_id, assignment_id, purpose, project_id, answer FROM judgment WHERE uuid = ?"
)
_TARGET = """
i.id, i.project_id, p.kind, i.is_gold, i.category_hint, i.status, i.target_judgments, i.n_judgments, i.n_positive,
i.n_negative, p.annotators_max, p.posterior_threshold, (SELECT count(*) FROM item_image m WHERE m.item_id = i.id)
"""
_TARGET_OF_LEASE = f"""
SELECT a.annotator_id, a.id, a.purpose, a.slot, a.state, a.shown_order, {_TARGET}
FROM assignment a JOIN item i ON i.id = a.item_id JOIN project p ON p.id = i.project_id
"""
TARGET_BY_ASSIGNMENT = f"{_TARGET_OF_LEASE} WHERE a.id = ?"
TARGETS_BY_ASSIGNMENTS = f"{_TARGET_OF_LEASE} WHERE a.id IN (SELECT value FROM json_each(?))"
TARGET_BY_ITEM = f"SELECT {_TARGET} FROM item i JOIN project p ON p.id = i.project_id WHERE i.id = ?"
ITEM_VOTES = """
SELECT answer, count(*) FROM current_judgment WHERE project_id = ? AND item_id = ?
AND purpose IN ('normal', 'adjudicate') GROUP BY answer
"""
ITEM_WRITE_COUNTS = """
UPDATE item SET n_judgments = ?, n_positive = ?, n_negative = ?, target_judgments = ?, n_leased = n_leased - ?,
  status = ?, tier = ?, position = ? WHERE id = ?
"""
ITEM_WRITE_COUNTS_IN_PLACE = """
UPDATE item SET n_judgments = ?, n_positive = ?, n_negative = ?, target_judgments = ?, n_leased = n_leased - ?,
  status = ? WHERE id = ?
"""
ITEM_LEASE_COUNTS = """
SELECT n_leased, (SELECT count(*) FROM assignment a WHERE a.item_id = item.id AND a.state = 'leased'
  AND a.slot IS NOT NULL) FROM item WHERE id = ?
"""

# --- snapshots --------------------------------------------------------------------------------------------------

SNAPSHOT_EXISTS = "SELECT 1 FROM snapshot WHERE hash = ?"
SNAPSHOT_NEXT_ID = "SELECT coalesce(max(id), 0) + 1 FROM snapshot"
SNAPSHOT_INSERT = """
INSERT INTO snapshot (id, hash, project_id, parent_hash, rule, header, created_at_us) VALUES (?, ?, ?, ?, ?, ?, ?)
"""
SNAPSHOT_JUDGMENT_INSERT = "INSERT INTO snapshot_judgment (snapshot_id, judgment_id) VALUES (?, ?)"
SNAPSHOT_LABEL_INSERT = """
INSERT INTO snapshot_label (snapshot_id, item_id, n_judgments, p_positive, answer, categories, utilities)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_SNAPSHOT = """
SELECT s.id, s.hash, p.name, p.kind, s.rule, s.parent_hash, s.header, s.created_at_us
FROM snapshot s JOIN project p ON p.id = s.project_id
"""
SNAPSHOT_BY_PREFIX = f"{_SNAPSHOT} WHERE substr(s.hash, 1, length(:prefix)) = :prefix LIMIT 2"
SNAPSHOT_ALL = f"{_SNAPSHOT} WHERE :project IS NULL OR p.name = :project ORDER BY s.id"
SNAPSHOT_JUDGMENTS = f"""{_JUDGMENT_COLUMNS} FROM snapshot_judgment s JOIN judgment j ON j.id = s.judgment_id
{_JUDGMENT_JOINS} WHERE s.snapshot_id = ? ORDER BY j.id
"""
SNAPSHOT_LABELS = """
SELECT l.item_id, i.prompt, l.n_judgments, l.p_positive, l.answer, l.categories, l.utilities
FROM snapshot_label l JOIN item i ON i.id = l.item_id WHERE l.snapshot_id = ? ORDER BY l.item_id
"""
SNAPSHOT_IMAGES = """
SELECT m.item_id, m.image_sha256, x.quarantined_at_us IS NOT NULL,
  (SELECT min(g.id) FROM generation g WHERE g.image_sha256 = m.image_sha256 AND g.project_id = i.project_id)
FROM snapshot_label l JOIN item_image m ON m.item_id = l.item_id JOIN item i ON i.id = m.item_id
JOIN image x ON x.sha256 = m.image_sha256 WHERE l.snapshot_id = ? ORDER BY m.item_id, m.position
"""
# The newest snapshot of each project, if it holds judgments of one annotator.
SNAPSHOTS_WITH_ANNOTATOR = """
SELECT s.hash, p.name, s.rule FROM snapshot s JOIN project p ON p.id = s.project_id
WHERE s.id IN (SELECT max(id) FROM snapshot GROUP BY project_id)
AND EXISTS (SELECT 1 FROM snapshot_judgment x JOIN judgment j ON j.id = x.judgment_id
  WHERE x.snapshot_id = s.id AND j.annotator_id = ?) ORDER BY s.id
"""
GENERATION_SEEDS = "SELECT id, seed, role, prompt FROM generation WHERE project_id = ?"
# What a snapshot takes: current judgments of people who have not withdrawn, on items that are not hidden. From the
# third column on, this is also what its hash covers.
SNAPSHOT_SOURCE = """
SELECT j.id, j.item_id, j.uuid, i.key_sha256, u.name, u.is_simulated, g.version, j.purpose, j.answer, j.categories,
  j.score, j.ranks, j.reason, j.shown_order, j.elapsed_ms, j.revealed_ms, j.judged_at_us
FROM current_judgment j JOIN item i ON i.id = j.item_id JOIN user u ON u.id = j.annotator_id
JOIN guideline g ON g.id = j.guideline_id
WHERE j.project_id = ? AND u.withdrawn_at_us IS NULL AND i.status <> 'hidden' ORDER BY j.uuid
"""

# --- runs and artifacts -----------------------------------------------------------------------------------------

_RUN = """
SELECT id, kind, config, config_hash, coalesce(snapshot_hash, ''), inputs, status, metrics, seconds, peak_memory_mib,
  started_at_us, finished_at_us FROM run
"""
RUN_INSERT = """
INSERT INTO run (id, kind, config, config_hash, snapshot_hash, inputs, status, started_at_us)
VALUES (?, ?, ?, ?, ?, ?, 'running', ?)
"""
RUN_FINISH = """
UPDATE run SET status = ?, metrics = ?, seconds = ?, peak_memory_mib = ?, finished_at_us = ? WHERE id = ?
"""
RUN_REOPEN = "UPDATE run SET status = 'running', finished_at_us = NULL WHERE id = ? AND status = 'cancelled'"
RUN_BY_ID = f"{_RUN} WHERE id = ?"
RUN_FIND = f"{_RUN} WHERE kind = ? AND config_hash = ? AND status = ? ORDER BY started_at_us DESC, rowid DESC LIMIT 1"
RUN_ALL = f"""{_RUN} WHERE (:kind IS NULL OR kind = :kind) AND (:status IS NULL OR status = :status)
ORDER BY started_at_us, rowid
"""
_ARTIFACT = "SELECT id, run_id, name, kind, path, sha256, size_bytes, details, created_at_us FROM artifact"
ARTIFACT_INSERT = """
INSERT INTO artifact (run_id, name, kind, path, sha256, size_bytes, details, created_at_us)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
ARTIFACT_FIND = f"{_ARTIFACT} WHERE run_id = ? AND name = ?"
ARTIFACT_OF_RUN = f"{_ARTIFACT} WHERE run_id = ? ORDER BY id"

# --- backup and doctor ------------------------------------------------------------------------------------------

COUNTED_TABLES = ("user", "project", "image", "item", "judgment", "snapshot", "run")
DOCTOR_MIGRATIONS = "SELECT name FROM _sqlite_migrations WHERE migration_set = 'hfi-store' ORDER BY id"
DOCTOR_IMAGES = "SELECT sha256 FROM image ORDER BY sha256"
DOCTOR_ARTIFACTS = "SELECT path, sha256 FROM artifact ORDER BY id"
DOCTOR_SUBMITS = "SELECT details FROM audit WHERE action = 'judgment.submit' ORDER BY id"
DOCTOR_LAST_JUDGMENT = "SELECT coalesce(max(id), 0) FROM judgment"
DOCTOR_COUNTS = """
SELECT i.id, i.n_judgments, coalesce(c.n, 0) AS n FROM item i LEFT JOIN (
  SELECT item_id, count(*) AS n FROM current_judgment WHERE purpose IN ('normal', 'adjudicate')
  AND answer NOT IN ('unsure', 'skip', 'broken', 'hide_kind') GROUP BY item_id) c ON c.item_id = i.id
WHERE i.n_judgments <> coalesce(c.n, 0) ORDER BY i.id
"""
DOCTOR_LEASES = """
SELECT i.id, i.n_leased, coalesce(c.n, 0) FROM item i LEFT JOIN (
  SELECT item_id, count(*) AS n FROM assignment WHERE state = 'leased' AND slot IS NOT NULL GROUP BY item_id
) c ON c.item_id = i.id WHERE i.n_leased <> coalesce(c.n, 0) ORDER BY i.id
"""

# --- export -----------------------------------------------------------------------------------------------------

EXPORT_ITEM_KEYS = "SELECT id, key_sha256 FROM item WHERE project_id = ?"
EXPORT_QUARANTINED = "SELECT sha256 FROM image WHERE quarantined_at_us IS NOT NULL"
_EXPORT_ITEM_IDS = """
SELECT DISTINCT j.item_id FROM snapshot_judgment s JOIN judgment j ON j.id = s.judgment_id WHERE s.snapshot_id = ?
"""
EXPORT_ITEMS = f"SELECT id, prompt, prompt_group, category_hint FROM item WHERE id IN ({_EXPORT_ITEM_IDS})"
EXPORT_ITEM_IMAGES = f"""
SELECT item_id, image_sha256 FROM item_image WHERE item_id IN ({_EXPORT_ITEM_IDS}) ORDER BY item_id, position
"""
EXPORT_PEOPLE = "SELECT id, is_simulated, is_imported FROM user"
EXPORT_GUIDELINES = "SELECT id, version FROM guideline"
# CROSS JOIN keeps SQLite walking along the index of uuids, in their order: sorting would hold every row in memory.
EXPORT_JUDGMENTS = f"""{_JUDGMENT_COLUMNS} FROM judgment j CROSS JOIN snapshot_judgment s ON s.judgment_id = j.id
{_JUDGMENT_JOINS} WHERE s.snapshot_id = ? ORDER BY j.uuid
"""
EXPORT_GENERATION = """
SELECT prompt, seed, model_id, model_sha256, negative_prompt, scheduler, num_inference_steps, guidance_scale, width,
  height, guard, role, versions, extra FROM generation WHERE project_id = ? AND image_sha256 = ?
ORDER BY request_sha256 LIMIT 1
"""
EXPORT_GOLD = """
SELECT i.key_sha256, g.answer, g.expected, g.explanation, g.is_training FROM gold g JOIN item i ON i.id = g.item_id
WHERE g.project_id = ? ORDER BY i.key_sha256
"""
