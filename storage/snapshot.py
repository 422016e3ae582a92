"""Snapshots: frozen, hashed sets of judgments with their labels. Everything made from feedback names one.

The hash covers what was judged, by whom, how, and the labels made from it by the named rule, and nothing that
differs between two stores holding the same feedback (row numbers).
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from storage import sql
from storage.errors import ConflictError, InvalidInputError, NotFoundError
from storage.judgments import judgment_from_row
from storage.records import JudgmentRecord, Snapshot, SnapshotImage, SnapshotLabel, canonical_json
from storage.validate import check_choice

if TYPE_CHECKING:
    import sqlite3

    from storage.labels import Label, Votes
    from storage.records import Project
    from storage.store import Store


def create_snapshot(
    store: Store, project: str, rule: str = "", *, parent_hash: str = "", actor: str = "system"
) -> Snapshot:
    """Freeze the judgments that stand now, with one label an item; the same judgments give the same snapshot.

    Args:
        rule: how answers become labels, one of ``labels.RULES_OF_KIND``; "" = the kind's default
            (dawid_skene for flag and pair, mean for score, plackett_luce for ranking).
        parent_hash: the snapshot this one replaces, "" = none.

    Raises:
        InvalidInputError: the project has no judgments yet, or the rule is not for its kind.
    """
    from storage.labels import RULES_OF_KIND, make_labels, measure_agreement

    record = store.get_project(project)
    rule = check_choice(rule or RULES_OF_KIND[record.kind][0], RULES_OF_KIND[record.kind], "aggregation rule")
    # Judgments are append-only, so what is read here stays true while it is aggregated: annotators can go on, and the
    # write lock is held only for writing the rows.
    with store.reading() as connection:
        source = _Source(connection, record)
        images = _item_images(connection, record.id) if record.kind in ("pair", "ranking") else {}
    if not source.judgment_ids:
        raise InvalidInputError(f"Project {record.name!r} has no judgments to freeze. Judge some items first.")
    labels = make_labels(source.votes, rule, images, source.known)
    header = source.header(rule, parent_hash, len(labels))
    snapshot_hash = _hash(header, source.digest, labels)
    if store.connection.execute(sql.SNAPSHOT_EXISTS, (snapshot_hash,)).fetchone() is None:
        header["agreement"] = measure_agreement(source.votes, record.categories)
        with store.transaction() as connection:
            # Another process may have frozen the same judgments meanwhile.
            if connection.execute(sql.SNAPSHOT_EXISTS, (snapshot_hash,)).fetchone() is None:
                _insert(connection, store.now_us(), record.id, snapshot_hash, header, source.judgment_ids, labels)
                store.add_audit("snapshot.create", snapshot_hash, {"project": record.name}, actor)
    return load_snapshot(store, snapshot_hash)


def withdraw_annotator(store: Store, name: str, actor: str = "system") -> list[Snapshot]:
    """Let a person take back everything they said: from now on nothing is made from it.

    Older snapshots stay as they are, because models and exports name them. Each project whose newest snapshot holds
    a judgment of this person gets a new one by the same rule, without them and with all that has been judged since.
    Doing it again changes nothing.

    Returns:
        The new snapshots; none for a project in which nobody else has judged anything.

    Raises:
        NotFoundError: no such annotator.
    """
    user = store.withdraw_annotator(name)
    made = []
    for snapshot_hash, project, rule in store.connection.execute(sql.SNAPSHOTS_WITH_ANNOTATOR, (user.id,)).fetchall():
        try:
            made.append(create_snapshot(store, project, rule, parent_hash=snapshot_hash, actor=actor))
        except InvalidInputError:  # no judgments are left to freeze
            continue
    return made


class _Source:
    """The judgments a snapshot takes in, read once from the store and kept as hash, numbers and votes."""

    def __init__(self, connection: sqlite3.Connection, project: Project) -> None:
        from storage.labels import Votes

        self.project = project
        self.votes: Votes = Votes(project.kind)
        self.judgment_ids: array[int] = array("q")
        self.known = {item_id: answer for item_id, answer, _ in connection.execute(sql.GOLD_ALL, (project.id,))}
        self.guideline_versions: set[int] = set()
        self.annotators: dict[str, bool] = {}
        hasher = hashlib.sha256()
        for row in connection.execute(sql.SNAPSHOT_SOURCE, (project.id,)):
            self._take(row, hasher)
        self.digest = hasher.hexdigest()

    def _take(self, row: tuple[Any, ...], hasher: Any) -> None:
        judgment_id, item_id, _, item_key, annotator, is_simulated, version, purpose, answer, *content = row
        hasher.update(f"{canonical_json(row[2:])}\n".encode())
        self.judgment_ids.append(judgment_id)
        self.guideline_versions.add(version)
        self.annotators[annotator] = bool(is_simulated)
        if purpose == "repeat":
            return  # asks about the annotator, not about the item
        if purpose == "adjudicate":
            self.known[item_id] = answer
        categories, score, ranks = content[:3]
        marked = json.loads(categories) if categories != "[]" else ()
        order = tuple(json.loads(ranks)) if ranks != "[]" else ()
        self.votes.add(item_id, item_key, annotator, answer, marked, score, order)

    def header(self, rule: str, parent_hash: str, n_items: int) -> dict[str, Any]:
        return {
            "project": self.project.name,
            "kind": self.project.kind,
            "rule": rule,
            "parent_hash": parent_hash,
            "guideline_versions": sorted(self.guideline_versions),
            "n_judgments": len(self.judgment_ids),
            "n_items": n_items,
            "n_annotators": len(self.annotators),
            "n_simulated": sum(self.annotators.values()),
        }


def _hash(header: dict[str, Any], judgments_digest: str, labels: list[Label]) -> str:
    hasher = hashlib.sha256(canonical_json([header, judgments_digest]).encode("utf-8"))
    for label in labels:
        content = [label.item_key, label.n_judgments, label.p_positive, label.answer, label.categories, label.utilities]
        hasher.update(canonical_json(content).encode("utf-8") + b"\n")
    return hasher.hexdigest()


def _insert(
    connection: sqlite3.Connection,
    now_us: int,
    project_id: int,
    snapshot_hash: str,
    header: dict[str, Any],
    judgment_ids: array[int],
    labels: list[Label],
) -> None:
    """Write the rows, then the header that seals them."""
    snapshot_id = connection.execute(sql.SNAPSHOT_NEXT_ID).fetchone()[0]
    pairs = ((snapshot_id, judgment_id) for judgment_id in sorted(judgment_ids))
    connection.executemany(sql.SNAPSHOT_JUDGMENT_INSERT, pairs)
    rows = (
        (
            snapshot_id,
            label.item_id,
            label.n_judgments,
            label.p_positive,
            label.answer,
            canonical_json(label.categories),
            canonical_json(label.utilities),
        )
        for label in labels
    )
    connection.executemany(sql.SNAPSHOT_LABEL_INSERT, rows)
    text = canonical_json(header)
    values = (snapshot_id, snapshot_hash, project_id, header["parent_hash"], header["rule"], text, now_us)
    connection.execute(sql.SNAPSHOT_INSERT, values)


def _item_images(connection: sqlite3.Connection, project_id: int) -> dict[int, tuple[str, ...]]:
    images: dict[int, list[str]] = defaultdict(list)
    for item_id, sha256 in connection.execute(sql.ITEM_IMAGES_ALL, (project_id,)):
        images[item_id].append(sha256)
    return {item_id: tuple(hashes) for item_id, hashes in images.items()}


def load_snapshot(store: Store, hash_or_prefix: str, *, with_judgments: bool = True) -> Snapshot:
    """A snapshot with all its judgments, labels and images; images quarantined since are left out.

    Args:
        hash_or_prefix: the hash, or its first characters (at least 6) if no other snapshot begins so.
        with_judgments: False leaves ``judgments`` empty, for snapshots too large to hold.

    Raises:
        NotFoundError: there is none.
        ConflictError: several begin so.
    """
    snapshot_id, found_hash, project, kind, rule, parent_hash, header_text, created_at_us = find_snapshot(
        store, hash_or_prefix
    )
    header = json.loads(header_text)
    with store.reading() as connection:
        rows = connection.execute(sql.SNAPSHOT_JUDGMENTS, (snapshot_id,)) if with_judgments else ()
        judgments = tuple(judgment_from_row(row) for row in rows)
        image_rows = connection.execute(sql.SNAPSHOT_IMAGES, (snapshot_id,)).fetchall()
        label_rows = connection.execute(sql.SNAPSHOT_LABELS, (snapshot_id,)).fetchall()
        project_id = store.get_project(project).id
        seeds = {row[0]: row[1:] for row in connection.execute(sql.GENERATION_SEEDS, (project_id,))}
    images_of: dict[int, list[str]] = defaultdict(list)
    for item_id, sha256, _, _ in image_rows:
        images_of[item_id].append(sha256)
    labels = tuple(_label_record(row, tuple(images_of[row[0]])) for row in label_rows)
    by_item = {label.item_id: label for label in labels}
    make_images = _image_records if kind in ("flag", "score") else _compared_image_records
    images = make_images([row for row in image_rows if not row[2]], by_item, seeds)
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


def _image_records(
    rows: Sequence[tuple[Any, ...]], labels: dict[int, SnapshotLabel], seeds: dict[int, tuple[Any, ...]]
) -> tuple[SnapshotImage, ...]:
    """The images of flags and scores: each has a label of its own."""
    return tuple(_image_record(row, labels[row[0]], labels[row[0]].p_positive or 0.0, seeds) for row in rows)


def _compared_image_records(
    rows: Sequence[tuple[Any, ...]], labels: dict[int, SnapshotLabel], seeds: dict[int, tuple[Any, ...]]
) -> tuple[SnapshotImage, ...]:
    """The images of pairs and rankings, each once however often it was compared, by its mean utility."""
    from storage.preference import share_by_utility

    utilities: dict[str, list[float]] = defaultdict(list)
    for label in labels.values():
        for sha256, utility in zip(label.images, label.utilities, strict=False):  # an item nobody ranked has none
            utilities[sha256].append(utility)
    first_rows = {row[1]: row for row in reversed(rows) if row[1] in utilities}
    ordered = sorted(first_rows.values(), key=lambda row: (row[0], row[1]))
    p_harmful = share_by_utility([sum(values) / len(values) for values in (utilities[row[1]] for row in ordered)])
    return tuple(_image_record(row, labels[row[0]], p, seeds) for row, p in zip(ordered, p_harmful, strict=True))


def _image_record(
    row: tuple[Any, ...], label: SnapshotLabel, p_harmful: float, seeds: dict[int, tuple[Any, ...]]
) -> SnapshotImage:
    item_id, sha256, _, generation_id = row
    seed, role, prompt = seeds.get(generation_id, (None, "", ""))
    head = (sha256, prompt or label.prompt, seed, p_harmful, p_harmful > 0.5, label.n_judgments, label.categories)
    return SnapshotImage(*head, item_id, generation_id, role)


def preferences(snapshot: Snapshot) -> list[tuple[str, str]]:
    """(chosen, rejected) image hashes of every two images that one person told apart; ties are left out.

    One entry a judgment and pair of images, so that what more people said weighs more. Empty for flags and scores.
    """
    from storage.preference import ranking_to_pairs

    images = {label.item_id: label.images for label in snapshot.labels}
    shown = {image.sha256 for image in snapshot.images}
    ranks_of_answer = {"first": (1, 2), "second": (2, 1)}
    found = []
    for judgment in snapshot.judgments:
        ranks = judgment.ranks if judgment.answer == "ranked" else ranks_of_answer.get(judgment.answer, ())
        if ranks and judgment.purpose != "repeat":
            names = images[judgment.item_id]
            found += [(names[better], names[worse]) for better, worse in ranking_to_pairs(ranks)]
    return [pair for pair in found if shown.issuperset(pair)]


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


def iterate_judgments(store: Store, hash_or_prefix: str) -> Iterator[JudgmentRecord]:
    """A snapshot's judgments one by one, oldest first, without holding them all."""
    snapshot_id = find_snapshot(store, hash_or_prefix)[0]
    for row in store.connection.execute(sql.SNAPSHOT_JUDGMENTS, (snapshot_id,)):
        yield judgment_from_row(row)


def diff_snapshots(store: Store, old_hash: str, new_hash: str) -> dict[str, Any]:
    """What changed between two snapshots of one project: judgments added and gone, labels changed.

    Raises:
        InvalidInputError: they are of different projects.
    """
    old, new = (load_snapshot(store, name) for name in (old_hash, new_hash))
    if old.project != new.project:
        raise InvalidInputError(
            f"Snapshots {old.hash[:12]} and {new.hash[:12]} are of different projects ({old.project!r}, "
            f"{new.project!r}). Compare snapshots of one project."
        )
    old_uuids, new_uuids = ({judgment.uuid for judgment in side.judgments} for side in (old, new))
    old_labels, new_labels = ({label.item_id: label for label in side.labels} for side in (old, new))
    changed = [
        {"item": item_id, "old": old_labels[item_id].answer, "new": label.answer, "p_positive": label.p_positive}
        for item_id, label in new_labels.items()
        if item_id in old_labels and old_labels[item_id].answer != label.answer
    ]
    return {
        "old": old.hash,
        "new": new.hash,
        "judgments_added": len(new_uuids - old_uuids),
        "judgments_gone": len(old_uuids - new_uuids),
        "items_added": len(new_labels.keys() - old_labels.keys()),
        "items_gone": len(old_labels.keys() - new_labels.keys()),
        "labels_changed": changed,
    }
