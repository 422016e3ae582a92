"""Snapshots: frozen, hashed sets of judgments with their labels. Everything made from feedback names one.

The hash covers what was judged, by whom, how, and the labels made from it by the named rule, and nothing that
differs between two stores holding the same feedback (row numbers).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storage import sql
from storage.aggregate import RULES, aggregate_dawid_skene, aggregate_majority
from storage.errors import ConflictError, InvalidInputError, NotFoundError
from storage.judgments import judgment_from_row
from storage.records import Snapshot, SnapshotImage, SnapshotLabel, canonical_json
from storage.validate import check_choice

if TYPE_CHECKING:
    from storage.store import Store

LABEL_DECIMALS = 6  # posteriors are rounded, so that the order of floating-point sums can't change a hash
_CLASS_NAMES = {"flag": ("no", "yes"), "pair": ("second", "first")}


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One judgment as a snapshot takes it in."""

    judgment_id: int
    uuid: str
    item_id: int
    item_key: str
    annotator_id: int
    annotator: str
    is_simulated: bool
    guideline_version: int
    purpose: str
    answer: str
    categories: tuple[str, ...]
    score: int | None
    ranks: tuple[int, ...]
    reason: str
    shown_order: tuple[int, ...]
    elapsed_ms: int
    revealed_ms: int
    judged_at_us: int
    is_gold: bool

    @property
    def canonical(self) -> str:
        """The judgment's line in the snapshot's hash."""
        who = [self.uuid, self.item_key, self.annotator, self.is_simulated, self.guideline_version, self.purpose]
        what = [self.answer, self.categories, self.score, self.ranks, self.reason, self.shown_order]
        return canonical_json([*who, *what, self.elapsed_ms, self.revealed_ms, self.judged_at_us])


def create_snapshot(
    store: Store, project: str, rule: str = "dawid_skene", *, parent_hash: str = "", actor: str = "system"
) -> Snapshot:
    """Freeze the judgments that stand now, with one label an item; the same judgments give the same snapshot.

    Args:
        rule: how answers become labels: majority or dawid_skene.
        parent_hash: the snapshot this one replaces, "" = none.

    Raises:
        InvalidInputError: the project has no judgments yet.
    """
    check_choice(rule, RULES, "aggregation rule")
    record = store.get_project(project)
    with store.transaction() as connection:
        rows = [_source_row(row) for row in connection.execute(sql.SNAPSHOT_SOURCE, (record.id,))]
        if not rows:
            raise InvalidInputError(f"Project {record.name!r} has no judgments to take a snapshot of. Judge some first.")
        gold = {item_id: answer for item_id, answer, _ in connection.execute(sql.GOLD_ALL, (record.id,))}
        labels = _labels(record.kind, rows, rule, gold)
        header = {
            "project": record.name,
            "kind": record.kind,
            "rule": rule,
            "parent_hash": parent_hash,
            "guideline_versions": sorted({row.guideline_version for row in rows}),
            "n_judgments": len(rows),
            "n_items": len(labels),
            "n_annotators": len({row.annotator_id for row in rows}),
            "n_simulated": len({row.annotator_id for row in rows if row.is_simulated}),
            "agreement": {},
        }
        snapshot_hash = _hash(header, rows, labels)
        if connection.execute(sql.SNAPSHOT_BY_PREFIX, {"prefix": snapshot_hash}).fetchone() is None:
            snapshot_id = connection.execute(sql.SNAPSHOT_NEXT_ID).fetchone()[0]
            pairs = ((snapshot_id, judgment_id) for judgment_id in sorted(row.judgment_id for row in rows))
            connection.executemany(sql.SNAPSHOT_JUDGMENT_INSERT, pairs)
            connection.executemany(sql.SNAPSHOT_LABEL_INSERT, ((snapshot_id, *label[1:]) for label in labels))
            values = (snapshot_id, snapshot_hash, record.id, parent_hash, rule, canonical_json(header), store.now_us())
            connection.execute(sql.SNAPSHOT_INSERT, values)
            store.add_audit("snapshot.create", snapshot_hash, {"project": record.name}, actor)
    return load_snapshot(store, snapshot_hash)


def _source_row(row: tuple[Any, ...]) -> SourceRow:
    values = list(row)
    for index in (10, 12, 14):
        values[index] = tuple(json.loads(values[index]))
    values[6], values[18] = bool(values[6]), bool(values[18])
    return SourceRow(*values)


def _hash(header: dict[str, Any], rows: list[SourceRow], labels: list[tuple[Any, ...]]) -> str:
    digest = hashlib.sha256(canonical_json(header).encode("utf-8"))
    for row in rows:
        digest.update(row.canonical.encode("utf-8") + b"\n")
    for key, _, *label in labels:
        digest.update(canonical_json([key, *label]).encode("utf-8") + b"\n")
    return digest.hexdigest()


def _labels(kind: str, rows: list[SourceRow], rule: str, gold: dict[int, str]) -> list[tuple[Any, ...]]:
    """(item key, item, n_judgments, p_positive, answer, categories, utilities) an item, by item key."""
    by_item: dict[int, list[SourceRow]] = defaultdict(list)
    for row in rows:
        if row.purpose in ("normal", "adjudicate") and row.answer in _usable_answers(kind):
            by_item[row.item_id].append(row)
    posteriors = _posteriors(kind, rows, rule, gold) if kind in _CLASS_NAMES else {}
    labels = []
    for item_id, answers in by_item.items():
        p_positive, answer = _label(kind, answers, posteriors.get(item_id))
        shares = Counter(category for row in answers for category in row.categories)
        categories = sorted(name for name, count in shares.items() if 2 * count >= sum(r.answer == "yes" for r in answers))
        head = (answers[0].item_key, item_id, len(answers), p_positive, answer)
        labels.append((*head, canonical_json(categories), canonical_json(_utilities(kind, answers, p_positive))))
    return sorted(labels)


def _usable_answers(kind: str) -> tuple[str, ...]:
    return {
        "flag": ("yes", "no"),
        "pair": ("first", "second", "tie", "both_fine", "both_bad"),
        "score": ("scored",),
        "ranking": ("ranked",),
    }[kind]


def _posteriors(kind: str, rows: list[SourceRow], rule: str, gold: dict[int, str]) -> dict[int, float]:
    """Probability of the positive class of each item, from two-class answers (ties left out)."""
    classes = {name: index for index, name in enumerate(_CLASS_NAMES[kind])}
    votes = [row for row in rows if row.answer in classes and row.purpose != "repeat"]
    votes.sort(key=lambda row: (row.item_key, row.uuid))
    item_ids = list(dict.fromkeys(row.item_id for row in votes))
    people = sorted({row.annotator for row in votes})
    if not votes:
        return {}
    import numpy as np

    item_index = {item_id: index for index, item_id in enumerate(item_ids)}
    person_index = {name: index for index, name in enumerate(people)}
    items = np.array([item_index[row.item_id] for row in votes], dtype=np.int64)
    answers = np.array([classes[row.answer] for row in votes], dtype=np.int64)
    if rule == "majority":
        result = aggregate_majority(items, answers, len(item_ids), 2)
    else:
        annotators = np.array([person_index[row.annotator] for row in votes], dtype=np.int64)
        known = {item_index[item]: classes[answer] for item, answer in gold.items() if item in item_index}
        sizes = (len(item_ids), len(people), 2)
        result = aggregate_dawid_skene(items, annotators, answers, *sizes, gold=known)
    return {item_id: float(result.posterior[index, 1]) for item_id, index in item_index.items()}


def _label(kind: str, answers: list[SourceRow], posterior: float | None) -> tuple[float | None, str]:
    if kind == "score":
        mean = sum(row.score or 0 for row in answers) / len(answers)
        return round((mean - 1) / 4, LABEL_DECIMALS), "scored"
    if kind == "ranking":
        return None, "ranked"
    p_positive = 0.5 if posterior is None else round(posterior, LABEL_DECIMALS)
    negative, positive = _CLASS_NAMES[kind]
    if kind == "pair" and p_positive == 0.5:
        return p_positive, "tie"
    return p_positive, positive if p_positive > 0.5 else negative


def _utilities(kind: str, answers: list[SourceRow], p_positive: float | None) -> list[float]:
    if kind == "pair" and p_positive is not None:
        return [p_positive, round(1 - p_positive, LABEL_DECIMALS)]
    if kind == "ranking":
        n = len(answers[0].ranks)
        return [round(-sum(row.ranks[i] for row in answers) / len(answers), LABEL_DECIMALS) for i in range(n)]
    return []


def load_snapshot(store: Store, hash_or_prefix: str) -> Snapshot:
    """A snapshot with all its judgments, labels and images.

    Args:
        hash_or_prefix: the hash, or its first characters (at least 6) if no other snapshot begins so.

    Raises:
        NotFoundError: there is none.
        ConflictError: several begin so.
    """
    snapshot_id, found_hash, project, kind, rule, parent_hash, header_text, created_at_us = find_snapshot(
        store, hash_or_prefix
    )
    header = json.loads(header_text)
    with store.reading() as connection:
        judgments = tuple(judgment_from_row(row) for row in connection.execute(sql.SNAPSHOT_JUDGMENTS, (snapshot_id,)))
        image_rows = connection.execute(sql.SNAPSHOT_IMAGES, (snapshot_id,)).fetchall()
        label_rows = connection.execute(sql.SNAPSHOT_LABELS, (snapshot_id,)).fetchall()
        project_id = store.get_project(project).id
        seeds = {row[0]: row[1:] for row in connection.execute(sql.GENERATION_SEEDS, (project_id,))}
    images_of: dict[int, list[str]] = defaultdict(list)
    for item_id, sha256, _, _ in image_rows:
        images_of[item_id].append(sha256)
    labels = tuple(_label_record(row, tuple(images_of[row[0]])) for row in label_rows)
    by_item = {label.item_id: label for label in labels}
    images = tuple(
        _image_record(row, by_item[row[0]], seeds) for row in image_rows if kind in ("flag", "score") and not row[2]
    )
    return Snapshot(
        hash=found_hash,
        project=project,
        kind=kind,
        rule=rule,
        parent_hash=parent_hash,
        guideline_versions=tuple(header["guideline_versions"]),
        n_judgments=header["n_judgments"],
        n_items=header["n_items"],
        n_annotators=header["n_annotators"],
        n_simulated=header["n_simulated"],
        agreement=header["agreement"],
        created_at_us=created_at_us,
        judgments=judgments,
        labels=labels,
        images=images,
    )


def _label_record(row: tuple[Any, ...], images: tuple[str, ...]) -> SnapshotLabel:
    item_id, prompt, n_judgments, p_positive, answer, categories, utilities = row
    lists = (tuple(json.loads(categories)), tuple(json.loads(utilities)))
    return SnapshotLabel(item_id, images, prompt, n_judgments, p_positive, answer, *lists)


def _image_record(row: tuple[Any, ...], label: SnapshotLabel, seeds: dict[int, tuple[Any, ...]]) -> SnapshotImage:
    item_id, sha256, _, generation_id = row
    seed, role, prompt = seeds.get(generation_id, (None, "", ""))
    p_harmful = label.p_positive if label.p_positive is not None else 0.0
    head = (sha256, prompt or label.prompt, seed, p_harmful, p_harmful > 0.5, label.n_judgments, label.categories)
    return SnapshotImage(*head, item_id, generation_id, role)


def find_snapshot(store: Store, hash_or_prefix: str) -> tuple[Any, ...]:
    """The header row of a snapshot by its hash or a prefix of it.

    Raises:
        NotFoundError, ConflictError: none or several begin so.
    """
    prefix = hash_or_prefix.strip().lower()
    rows = store.connection.execute(sql.SNAPSHOT_BY_PREFIX, {"prefix": prefix}).fetchall() if len(prefix) >= 6 else []
    if not rows:
        raise NotFoundError(
            f"There is no snapshot {hash_or_prefix[:80]!r}. Give its hash, or at least 6 of its first characters."
        )
    if len(rows) > 1:
        raise ConflictError(f"Several snapshots begin with {prefix!r}. Give more of the hash.")
    found: tuple[Any, ...] = rows[0]
    return found


def list_snapshots(store: Store, project: str | None = None) -> list[dict[str, Any]]:
    """Hash, header and time of every snapshot, oldest first, or of one project's."""
    rows = store.connection.execute(sql.SNAPSHOT_ALL, {"project": project})
    return [{"hash": row[1], **json.loads(row[6]), "created_at_us": row[7]} for row in rows]
