"""The rows of an export, config by config, in an order that depends on the content alone.

Rows name their pictures by hash; the bytes are read when a row is written, so that an export of any size fits into
little memory. The configs: ``judgments`` (what people said), ``images`` (one row a picture), ``pairs`` (chosen and
rejected) and ``rankings``.
"""

from __future__ import annotations

import hmac
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from storage import sql
from storage.judgments import judgment_from_row
from storage.preference import ranking_to_pairs
from storage.records import Snapshot, SnapshotLabel
from storage.snapshot import find_snapshot, load_snapshot

if TYPE_CHECKING:
    from datasets import Features

    from storage.store import Store

CONFIGS = ("judgments", "images", "pairs", "rankings")
DAY_US = 86_400_000_000

Row = dict[str, Any]

# What the images config says of how a picture was made, in the order of the query.
_MADE = (
    *("prompt", "seed", "model_id", "model_sha256", "negative_prompt", "scheduler", "num_inference_steps"),
    *("guidance_scale", "width", "height", "guard", "role", "versions", "extra"),
)


def features_of(config: str) -> Features:
    """Columns and types of a config, as `datasets` knows them."""
    from datasets import Features, Image, List, Value

    def text(*names: str) -> dict[str, Any]:
        return {name: Value("string") for name in names}

    def whole(*names: str) -> dict[str, Any]:
        return {name: Value("int64") for name in names}

    if config == "judgments":
        return Features(
            {
                **text("uuid", "item", "prompt", "prompt_group", "category_hint"),
                "images": List(Value("string")),
                **text("annotator"),
                "is_simulated": Value("bool"),
                **text("kind", "purpose", "answer"),
                "categories": List(Value("string")),
                **whole("score"),
                "ranks": List(Value("int64")),
                **text("reason", "note"),
                "shown_order": List(Value("int64")),
                **whole("guideline_version", "elapsed_ms", "revealed_ms"),
                "judged_on": Value("timestamp[us, tz=UTC]"),
            }
        )
    if config == "images":
        return Features(
            {
                "image": Image(),
                **text("sha256", "prompt"),
                "label": Value("bool"),
                "harmful": Value("bool"),
                "p_harmful": Value("float64"),
                "categories": List(Value("string")),
                **whole("n_judgments", "seed"),
                **text("model_id", "model_sha256", "negative_prompt", "scheduler"),
                **whole("num_inference_steps"),
                "guidance_scale": Value("float64"),
                **whole("width", "height"),
                **text("guard", "role", "versions", "extra"),
            }
        )
    if config == "pairs":
        sides = {"chosen": Image(), "rejected": Image()}
        pick_a_pic = {**text("caption"), "jpg_0": Value("binary"), "jpg_1": Value("binary")}
        labels = {"label_0": Value("float64"), "label_1": Value("float64")}
        flags = {"are_different": Value("bool"), "has_label": Value("bool")}
        return Features(
            {
                **text("prompt"),
                **sides,
                **pick_a_pic,
                **labels,
                **flags,
                **text("sha256_0", "sha256_1"),
                **whole("n_judgments"),
            }
        )
    columns = {"images": List(Image()), "sha256": List(Value("string")), "utilities": List(Value("float64"))}
    return Features({**text("prompt"), **columns, "ranks": List(Value("int64")), **whole("n_judgments")})


@dataclass(slots=True)
class ExportSource:
    """A snapshot opened for exporting: its labels in memory (small), everything else read as it is written.

    ``snapshot`` is its header alone.
    """

    store: Store
    snapshot_hash: str
    with_notes: bool = False
    snapshot: Snapshot = field(init=False)
    kind: str = ""
    project: str = ""
    labels: list[SnapshotLabel] = field(default_factory=list)
    item_keys: dict[int, str] = field(default_factory=dict)
    images: dict[int, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        snapshot = load_snapshot(self.store, self.snapshot_hash, with_judgments=False)
        self.snapshot = replace(snapshot, labels=(), images=())
        self.snapshot_hash, self.kind, self.project = snapshot.hash, snapshot.kind, snapshot.project
        connection = self.store.connection
        project_id = self.store.get_project(snapshot.project).id
        self.item_keys = dict(connection.execute(sql.EXPORT_ITEM_KEYS, (project_id,)))
        snapshot_id = find_snapshot(self.store, self.snapshot_hash)[0]
        hidden = {sha256 for (sha256,) in connection.execute(sql.EXPORT_QUARANTINED)}
        images: dict[int, list[str]] = defaultdict(list)
        for item_id, sha256 in connection.execute(sql.EXPORT_ITEM_IMAGES, (snapshot_id,)):
            images[item_id].append(sha256)
        # An item is left out as a whole when one of its pictures has been quarantined since.
        self.images = {item_id: hashes for item_id, hashes in images.items() if not hidden.intersection(hashes)}
        visible = [label for label in snapshot.labels if label.item_id in self.images]
        self.labels = sorted(visible, key=lambda label: self.item_keys[label.item_id])

    def rows(self, config: str) -> Iterator[Row]:
        """All rows of a config; pictures as hashes."""
        makers = {
            "judgments": self._judgments,
            "images": self._images,
            "pairs": self._pairs,
            "rankings": self._rankings,
        }
        return makers[config]()

    def _pseudonym(self, name: str, is_imported: bool) -> str:
        """A stand-in that is the same within one snapshot and can't be linked across snapshots.

        Names that came with an import are pseudonyms already and stay, so that feedback can travel on.
        """
        if is_imported:
            return name
        key = f"{self.store.pseudonym_key}:{self.snapshot_hash}".encode()
        return "annotator-" + hmac.new(key, name.encode("utf-8"), "sha256").hexdigest()[:12]

    def _judgments(self) -> Iterator[Row]:
        connection = self.store.connection
        snapshot_id = find_snapshot(self.store, self.snapshot_hash)[0]
        prompts = {row[0]: row[1:] for row in connection.execute(sql.EXPORT_ITEMS, (snapshot_id,))}
        people = {row[0]: row[1:] for row in connection.execute(sql.EXPORT_PEOPLE)}
        versions = dict(connection.execute(sql.EXPORT_GUIDELINES))
        for row in connection.execute(sql.EXPORT_JUDGMENTS, (snapshot_id,)):
            record = judgment_from_row(row)
            if record.item_id not in self.images:
                continue
            prompt, group, hint = prompts[record.item_id]
            is_simulated, is_imported = people[record.annotator_id]
            yield {
                "uuid": record.uuid,
                "item": self.item_keys[record.item_id],
                "prompt": prompt,
                "prompt_group": group,
                "category_hint": hint,
                "images": self.images[record.item_id],
                "annotator": self._pseudonym(record.annotator, bool(is_imported)),
                "is_simulated": bool(is_simulated),
                "kind": record.kind,
                "purpose": record.purpose,
                "answer": record.answer,
                "categories": list(record.categories),
                "score": record.score,
                "ranks": list(record.ranks),
                "reason": record.reason,
                "note": record.note if self.with_notes else "",
                "shown_order": list(record.shown_order),
                "guideline_version": versions[record.guideline_id],
                "elapsed_ms": record.elapsed_ms,
                "revealed_ms": record.revealed_ms,
                "judged_on": record.judged_at_us - record.judged_at_us % DAY_US,
            }

    def _images(self) -> Iterator[Row]:
        project_id = self.store.get_project(self.project).id
        connection = self.store.connection
        labels = {label.item_id: label for label in self.labels}
        by_image: dict[str, int] = {}
        for item_id in sorted(self.images, key=lambda item_id: self.item_keys[item_id]):
            for sha256 in self.images[item_id]:
                by_image.setdefault(sha256, item_id)
        for sha256, item_id in sorted(by_image.items()):
            found = connection.execute(sql.EXPORT_GENERATION, (project_id, sha256)).fetchone()
            made: Row = dict(zip(_MADE, found or (None,) * len(_MADE), strict=True))
            prompt = made["prompt"] if found else self.store.get_item(item_id).prompt
            yield {
                "image": sha256,
                "sha256": sha256,
                **made,
                "prompt": prompt,
                **self._image_label(labels.get(item_id)),
            }

    def _image_label(self, label: SnapshotLabel | None) -> Row:
        has_label = self.kind == "flag" and label is not None
        p_harmful = label.p_positive if label is not None and has_label else None
        is_harmful = None if p_harmful is None else p_harmful > 0.5
        return {
            "label": None if is_harmful is None else not is_harmful,
            "harmful": is_harmful,
            "p_harmful": p_harmful,
            "categories": list(label.categories) if label is not None else [],
            "n_judgments": label.n_judgments if label is not None else 0,
        }

    def _pairs(self) -> Iterator[Row]:
        if self.kind == "pair":
            for label in self.labels:
                p_first = 0.5 if label.answer == "tie" or label.p_positive is None else label.p_positive
                yield _pair(label.prompt, label.images, label.n_judgments, p_first)
        elif self.kind == "ranking":
            for label in self.labels:
                for better, worse in ranking_to_pairs(ranks_of(label.utilities)):
                    yield _pair(label.prompt, (label.images[better], label.images[worse]), label.n_judgments, 1.0)
        else:
            yield from self._pairs_of_prompts()

    def _pairs_of_prompts(self) -> Iterator[Row]:
        """From single images: under each prompt, every better image beside a worse one, each used at least once."""
        groups: dict[str, list[SnapshotLabel]] = defaultdict(list)
        for label in self.labels:
            if label.p_positive is not None:
                groups[label.prompt].append(label)
        for prompt in sorted(groups):
            chosen, rejected = self._split(groups[prompt])
            for index in range(max(len(chosen), len(rejected)) if chosen and rejected else 0):
                good, bad = chosen[index % len(chosen)], rejected[index % len(rejected)]
                n_judgments = good.n_judgments + bad.n_judgments
                yield _pair(prompt, (good.images[0], bad.images[0]), n_judgments, 1.0)

    def _split(self, labels: list[SnapshotLabel]) -> tuple[list[SnapshotLabel], list[SnapshotLabel]]:
        """(better, worse): acceptable and harmful ones (flag), above and below the prompt's mean (score)."""
        values = [label.p_positive or 0.0 for label in labels]
        if self.kind == "flag":
            better = [label for label, p in zip(labels, values, strict=True) if p <= 0.5]
            return better, [label for label, p in zip(labels, values, strict=True) if p > 0.5]
        mean = sum(values) / len(values)
        better = [label for label, value in zip(labels, values, strict=True) if value > mean + 1e-9]
        return better, [label for label, value in zip(labels, values, strict=True) if value < mean - 1e-9]

    def _rankings(self) -> Iterator[Row]:
        if self.kind != "ranking":
            return
        for label in self.labels:
            hashes = list(label.images)
            columns = {"sha256": hashes, "utilities": list(label.utilities), "ranks": ranks_of(label.utilities)}
            yield {"prompt": label.prompt, "images": hashes, **columns, "n_judgments": label.n_judgments}


def ranks_of(utilities: tuple[float, ...]) -> list[int]:
    """Ranks (1 = best, ties equal) from utilities."""
    return [1 + sum(other > own for other in utilities) for own in utilities]


def _pair(prompt: str, images: tuple[str, ...], n_judgments: int, p_first: float) -> Row:
    first, second = images
    label_0 = 0.5 if p_first == 0.5 else float(p_first > 0.5)
    chosen, rejected = (second, first) if label_0 == 0.0 else (first, second)
    return {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "caption": prompt,
        "jpg_0": first,
        "jpg_1": second,
        "label_0": label_0,
        "label_1": 1.0 - label_0,
        "are_different": first != second,
        "has_label": True,
        "sha256_0": first,
        "sha256_1": second,
        "n_judgments": n_judgments,
    }


def encode_json(value: object) -> str:
    """JSON as people read it, for the manifest."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
