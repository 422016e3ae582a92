"""The statements of accounts and care, by name; the other half of ``storage.sql``. Values are always bound."""

from __future__ import annotations

# --- passwords, sessions, tokens --------------------------------------------------------------------------------

PASSWORD_GET = "SELECT password_hash FROM user WHERE id = ?"
PASSWORD_SET = "UPDATE user SET password_hash = ? WHERE id = ?"
ROLE_SET = "UPDATE user SET role = ? WHERE id = ?"
USER_ENABLE = "UPDATE user SET disabled_at_us = NULL WHERE id = ? AND withdrawn_at_us IS NULL"
OWNERS_WITH_PASSWORD = """
SELECT count(*) FROM user WHERE role = 'owner' AND password_hash IS NOT NULL AND disabled_at_us IS NULL
"""
SESSION_INSERT = "INSERT INTO session (user_id, token_sha256, created_at_us, expires_at_us) VALUES (?, ?, ?, ?)"
_USER = "SELECT u.id, u.name, u.role, u.is_simulated, u.disabled_at_us, u.details, u.created_at_us"
SESSION_USER = f"""{_USER} FROM session s JOIN user u ON u.id = s.user_id
WHERE s.token_sha256 = ? AND s.revoked_at_us IS NULL AND s.expires_at_us > ? AND u.disabled_at_us IS NULL
"""
SESSION_REVOKE = "UPDATE session SET revoked_at_us = ? WHERE token_sha256 = ? AND revoked_at_us IS NULL"
SESSIONS_REVOKE = """
UPDATE session SET revoked_at_us = ?1 WHERE user_id = ?2 AND token_sha256 <> ?3 AND revoked_at_us IS NULL
AND expires_at_us > ?1
"""
SESSIONS_OF_USER = """
SELECT id, token_sha256, created_at_us, expires_at_us FROM session
WHERE user_id = ? AND revoked_at_us IS NULL AND expires_at_us > ? ORDER BY id
"""
TOKEN_INSERT = """
INSERT INTO api_token (user_id, name, token_sha256, created_at_us, expires_at_us) VALUES (?, ?, ?, ?, ?)
"""
TOKEN_USER = f"""{_USER} FROM api_token t JOIN user u ON u.id = t.user_id
WHERE t.token_sha256 = ? AND t.revoked_at_us IS NULL AND (t.expires_at_us IS NULL OR t.expires_at_us > ?)
AND u.disabled_at_us IS NULL
"""
TOKENS_OF_USER = """
SELECT id, name, created_at_us, expires_at_us FROM api_token WHERE user_id = ? AND revoked_at_us IS NULL ORDER BY id
"""
TOKEN_REVOKE = "UPDATE api_token SET revoked_at_us = ? WHERE id = ? AND user_id = ? AND revoked_at_us IS NULL"
TOKENS_REVOKE = "UPDATE api_token SET revoked_at_us = ? WHERE user_id = ? AND revoked_at_us IS NULL"

# --- invitations and tries to log in ----------------------------------------------------------------------------

INVITATION_INSERT = """
INSERT INTO invitation (token_sha256, role, created_by, created_at_us, expires_at_us) VALUES (?, ?, ?, ?, ?)
"""
INVITATION_FIND = """
SELECT id, role FROM invitation
WHERE token_sha256 = ? AND used_at_us IS NULL AND revoked_at_us IS NULL AND expires_at_us > ?
"""
INVITATION_USE = "UPDATE invitation SET used_at_us = ?, used_by = ? WHERE id = ? AND used_at_us IS NULL"
INVITATIONS_OPEN = """
SELECT i.id, i.role, coalesce(u.name, ''), i.created_at_us, i.expires_at_us FROM invitation i
LEFT JOIN user u ON u.id = i.created_by
WHERE i.used_at_us IS NULL AND i.revoked_at_us IS NULL AND i.expires_at_us > ? ORDER BY i.id
"""
INVITATION_REVOKE = "UPDATE invitation SET revoked_at_us = ? WHERE id = ? AND used_at_us IS NULL"
OWNER_LINKS_REVOKE = """
UPDATE invitation SET revoked_at_us = ? WHERE created_by IS NULL AND role = 'owner' AND used_at_us IS NULL
AND revoked_at_us IS NULL
"""
ATTEMPT_GET = "SELECT n_failed, failed_at_us, blocked_until_us FROM login_attempt WHERE subject = ?"
ATTEMPT_PUT = """
INSERT INTO login_attempt (subject, n_failed, failed_at_us, blocked_until_us) VALUES (?, ?, ?, ?)
ON CONFLICT (subject) DO UPDATE SET n_failed = excluded.n_failed, failed_at_us = excluded.failed_at_us,
  blocked_until_us = excluded.blocked_until_us
"""
ATTEMPT_CLEAR = "DELETE FROM login_attempt WHERE subject = ?"
ATTEMPTS_FORGET = "DELETE FROM login_attempt WHERE failed_at_us < ? AND blocked_until_us < ?"

# --- settings ---------------------------------------------------------------------------------------------------

SETTING_GET = "SELECT value FROM user_setting WHERE user_id = ? AND name = ?"
SETTING_PUT = """
INSERT INTO user_setting (user_id, name, value) VALUES (?, ?, ?)
ON CONFLICT (user_id, name) DO UPDATE SET value = excluded.value
"""
CARE_GET = """
SELECT shows_prompt, rank_size, break_after_minutes, daily_cap_minutes, min_judgment_ms, consent_wording
FROM project_care WHERE project_id = ?
"""
CARE_PUT = """
INSERT INTO project_care (project_id, shows_prompt, rank_size, break_after_minutes, daily_cap_minutes, min_judgment_ms,
  consent_wording) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (project_id) DO UPDATE SET shows_prompt = excluded.shows_prompt, rank_size = excluded.rank_size,
  break_after_minutes = excluded.break_after_minutes, daily_cap_minutes = excluded.daily_cap_minutes,
  min_judgment_ms = excluded.min_judgment_ms, consent_wording = excluded.consent_wording
"""

# --- exposure and rest ------------------------------------------------------------------------------------------

EXPOSURE_ADD = """
INSERT INTO exposure (user_id, project_id, day, n_judged, n_revealed, n_too_fast, exposed_ms)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (user_id, project_id, day) DO UPDATE SET
  n_judged = n_judged + excluded.n_judged, n_revealed = n_revealed + excluded.n_revealed,
  n_too_fast = n_too_fast + excluded.n_too_fast, exposed_ms = exposed_ms + excluded.exposed_ms
"""
EXPOSURE_OF_DAY = """
SELECT coalesce(sum(n_revealed), 0), coalesce(sum(exposed_ms), 0) FROM exposure WHERE user_id = ? AND day = ?
"""
EXPOSURE_BY_PERSON = """
SELECT u.name, e.day, e.n_judged, e.n_revealed, e.n_too_fast, e.exposed_ms FROM exposure e
JOIN user u ON u.id = e.user_id WHERE e.project_id = ? ORDER BY e.day, u.name
"""
REST_GET = "SELECT stretch_ms, seen_at_us, break_until_us FROM rest WHERE user_id = ?"
REST_PUT = """
INSERT INTO rest (user_id, stretch_ms, seen_at_us, break_until_us) VALUES (?, ?, ?, ?)
ON CONFLICT (user_id) DO UPDATE SET stretch_ms = excluded.stretch_ms, seen_at_us = excluded.seen_at_us,
  break_until_us = excluded.break_until_us
"""
TRAINING_PROGRESS = """
SELECT (SELECT count(*) FROM gold g JOIN item i ON i.id = g.item_id
    WHERE g.project_id = :project_id AND g.is_training = 1 AND i.status <> 'hidden'),
  (SELECT count(*) FROM assignment a WHERE a.project_id = :project_id AND a.annotator_id = :annotator_id
    AND a.purpose = 'training' AND a.state = 'done')
"""
PROJECT_PROGRESS = """
SELECT count(*), coalesce(sum(status IN ('done', 'adjudicate')), 0), coalesce(sum(n_judgments), 0),
  coalesce(sum(target_judgments), 0) FROM item WHERE project_id = ? AND status <> 'hidden' AND is_gold = 0
"""
JUDGED_BY_USER = "SELECT count(*) FROM assignment WHERE annotator_id = ? AND project_id = ? AND state = 'done'"

# --- late judgments ---------------------------------------------------------------------------------------------

LEASE_FOR_LATE = """
SELECT a.state, a.slot, a.purpose, a.item_id, a.project_id, a.annotator_id, i.status,
  i.n_judgments + i.n_leased < i.target_judgments FROM assignment a JOIN item i ON i.id = a.item_id WHERE a.id = ?
"""
LEASE_ELSEWHERE = """
SELECT id, slot, state FROM assignment WHERE item_id = ? AND annotator_id = ? AND id <> ?
AND state IN ('leased', 'done') AND (purpose = 'repeat') = ?
"""
ASSIGNMENT_PROJECT = "SELECT project_id, annotator_id, item_id FROM assignment WHERE id = ?"
ASSIGNMENT_IDS_RENEW = """
UPDATE assignment SET expires_at_us = ? WHERE id = ? AND annotator_id = ? AND state = 'leased'
"""
LEASES_UNWANTED = """
SELECT a.id, a.item_id, a.slot FROM assignment a JOIN item i ON i.id = a.item_id
JOIN opt_out o ON o.user_id = a.annotator_id AND o.project_id = a.project_id AND o.category = i.category_hint
WHERE a.annotator_id = ? AND a.project_id = ? AND a.state = 'leased'
"""
PROJECT_NAME = "SELECT name FROM project WHERE id = ?"
