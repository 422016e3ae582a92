"""The statements of the gallery and of the quality page, by name; values are always bound.

A page of pictures is found in two steps: first the hashes, by conditions that are each a list made once a query, then
what is shown of those few. So a page costs about the same whatever the project holds.
"""

from __future__ import annotations

# --- which pictures ---------------------------------------------------------------------------------------------

IN_PROJECT = """
(EXISTS (SELECT 1 FROM generation g WHERE g.image_sha256 = x.sha256 AND g.project_id = :project_id)
 OR EXISTS (SELECT 1 FROM item_image m JOIN item i ON i.id = m.item_id
   WHERE m.image_sha256 = x.sha256 AND i.project_id = :project_id))
"""
VISIBLE = "x.quarantined_at_us IS NULL"
_OF_ITEMS = "SELECT m.image_sha256 FROM item i JOIN item_image m ON m.item_id = i.id WHERE i.project_id = :project_id"
_OF_GENERATIONS = "SELECT g.image_sha256 FROM generation g WHERE g.project_id = :project_id"

PROMPT = (
    f"(x.sha256 IN ({_OF_GENERATIONS} AND g.prompt LIKE :prompt ESCAPE '\\') "
    f"OR x.sha256 IN ({_OF_ITEMS} AND i.prompt LIKE :prompt ESCAPE '\\'))"
)
SEED = f"x.sha256 IN ({_OF_GENERATIONS} AND g.seed = :seed)"
MODEL = f"x.sha256 IN ({_OF_GENERATIONS} AND g.model_id = :model_id)"
SCORE = """
x.sha256 IN (SELECT c.image_sha256 FROM concept_score c
  WHERE c.project_id = :project_id AND c.score BETWEEN :score_low AND :score_high)
"""
STATES = {
    "open": f"x.sha256 IN ({_OF_ITEMS} AND i.status = 'open')",
    "done": f"x.sha256 IN ({_OF_ITEMS} AND i.status = 'done')",
    "adjudicate": f"x.sha256 IN ({_OF_ITEMS} AND i.status = 'adjudicate')",
    "hidden": f"(x.quarantined_at_us IS NOT NULL OR x.sha256 IN ({_OF_ITEMS} AND i.status = 'hidden'))",
    "not queued": f"x.sha256 NOT IN ({_OF_ITEMS})",
}
AGREEMENTS = {
    "agreed": f"x.sha256 IN ({_OF_ITEMS} AND i.n_judgments >= 2 AND (i.n_positive = 0 OR i.n_negative = 0))",
    "disputed": f"x.sha256 IN ({_OF_ITEMS} AND i.n_positive > 0 AND i.n_negative > 0)",
    "not judged": f"x.sha256 IN ({_OF_ITEMS} AND i.n_judgments = 0)",
}
_SCORED = "FROM image x JOIN concept_score s ON s.image_sha256 = x.sha256 AND s.project_id = :project_id"
ORDERS = {
    "newest": ("FROM image x", "x.rowid DESC"),
    "oldest": ("FROM image x", "x.rowid"),
    "highest score": (_SCORED, "s.score DESC, x.rowid"),
    "lowest score": (_SCORED, "s.score, x.rowid"),
    "most disputed by the model": (_SCORED, "s.spread DESC, x.rowid"),
}


def page_of_hashes(order: str, conditions: list[str]) -> str:
    """The statement for one page of hashes in one of ORDERS."""
    source, by = ORDERS[order]
    return f"SELECT x.sha256 {source} WHERE {' AND '.join(conditions)} ORDER BY {by} LIMIT :n_rows OFFSET :offset"


# --- what is shown of them --------------------------------------------------------------------------------------

PICTURES = """
SELECT x.sha256, x.width, x.height, coalesce(g.prompt, i.prompt, ''), g.seed, coalesce(g.model_id, ''),
  coalesce(g.role, ''), i.id, coalesce(i.status, ''), coalesce(i.n_judgments, 0), coalesce(i.n_positive, 0),
  coalesce(i.n_negative, 0), c.score, c.spread, x.quarantined_at_us IS NOT NULL
FROM json_each(:hashes) h JOIN image x ON x.sha256 = h.value
LEFT JOIN generation g ON g.id =
  (SELECT min(o.id) FROM generation o WHERE o.image_sha256 = x.sha256 AND o.project_id = :project_id)
LEFT JOIN item i ON i.id = (SELECT min(m.item_id) FROM item_image m JOIN item y ON y.id = m.item_id
  WHERE m.image_sha256 = x.sha256 AND y.project_id = :project_id)
LEFT JOIN concept_score c ON c.project_id = :project_id AND c.image_sha256 = x.sha256
ORDER BY h.key
"""
GENERATIONS_OF_PICTURE = """
SELECT g.id, g.project_id, g.image_sha256, g.request_sha256, g.prompt, g.negative_prompt, g.seed, g.scheduler,
  g.num_inference_steps, g.guidance_scale, g.width, g.height, g.model_id, g.model_sha256, g.guard, g.role,
  g.versions, g.extra, g.created_at_us FROM generation g
WHERE g.project_id = ? AND g.image_sha256 = ? ORDER BY g.id
"""
# Newest first by the row's number (the + keeps the planner from sorting an index): stops as soon as there are enough.
GENERATED = """
SELECT g.image_sha256 FROM generation g
WHERE +g.project_id = :project_id AND g.model_id = :model_id AND g.num_inference_steps = :num_inference_steps
  AND g.scheduler = :scheduler AND g.guidance_scale = :guidance_scale AND g.guard = :guard AND g.role = :role
  AND g.seed IN (SELECT value FROM json_each(:seeds)) AND g.prompt IN (SELECT value FROM json_each(:prompts))
ORDER BY g.id DESC LIMIT :n_rows
"""
MODELS = "SELECT DISTINCT model_id FROM generation WHERE project_id = ? ORDER BY model_id"
JUDGMENT_UUIDS_OF_ITEM = "SELECT uuid FROM current_judgment WHERE project_id = ? AND item_id = ? ORDER BY id"

# --- concept scores ---------------------------------------------------------------------------------------------

SCORES_RUN = "SELECT run_id FROM concept_score WHERE project_id = ? LIMIT 1"
SCORES_CLEAR = "DELETE FROM concept_score WHERE project_id = ?"
SCORES_INSERT = """
INSERT INTO concept_score (project_id, image_sha256, score, spread, run_id)
SELECT ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM image WHERE sha256 = ?2)
"""

# --- how judging goes -------------------------------------------------------------------------------------------

# Of each day (UTC) and annotator: standing judgments, those that say something, those that say yes (or first), gold
# items seen and right, pictures uncovered and for how long, and how many answers took less than :too_fast_ms.
DAYS = """
SELECT j.created_at_us / 86400000000, u.name, u.is_simulated, count(*),
  sum(j.answer NOT IN ('unsure', 'skip', 'broken', 'hide_kind')), sum(j.answer IN ('yes', 'first')),
  sum(g.item_id IS NOT NULL AND j.answer NOT IN ('unsure', 'skip', 'broken', 'hide_kind')),
  sum(g.item_id IS NOT NULL AND j.answer = g.answer), sum(j.revealed_ms > 0), sum(j.revealed_ms),
  sum(j.elapsed_ms > 0 AND j.elapsed_ms < :too_fast_ms), sum(j.elapsed_ms)
FROM current_judgment j JOIN user u ON u.id = j.annotator_id LEFT JOIN gold g ON g.item_id = j.item_id
WHERE j.project_id = :project_id GROUP BY 1, 2 ORDER BY 1, 2
"""
LAST_JUDGMENT = "SELECT coalesce(max(id), 0) FROM judgment WHERE project_id = ?"
DISPUTED = """
SELECT i.id FROM item i WHERE i.project_id = :project_id AND i.is_gold = 0
AND (i.status = 'adjudicate' OR (i.status <> 'hidden' AND i.n_positive > 0 AND i.n_negative > 0
  AND NOT EXISTS (SELECT 1 FROM current_judgment j WHERE j.project_id = :project_id AND j.item_id = i.id
    AND j.purpose = 'adjudicate')))
ORDER BY i.status <> 'adjudicate', i.id LIMIT :n_rows OFFSET :offset
"""
PROJECTS_OF_ANNOTATOR = """
SELECT DISTINCT p.name FROM judgment j JOIN project p ON p.id = j.project_id WHERE j.annotator_id = ? ORDER BY p.id
"""
