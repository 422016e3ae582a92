# mypy: disable-error-code="import-untyped"
"""Our own exports back in: the same pictures, judgments and labels, so that exporting again gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.errors import InvalidInputError
from storage.export import read_manifest
from storage.files import file_sha256
from storage.image_codec import encode_image
from storage.importers import ImportReport, OnRows, add_imported_annotator, batches, target_project
from storage.records import GenerationParams, ItemInput, JudgmentInput, Project
from storage.snapshot import create_snapshot

if TYPE_CHECKING:
    from storage.store import Store

_IMAGE_ROWS = 50
_JUDGMENT_ROWS = 500


def check_export(folder: Path) -> dict[str, Any]:
    """The manifest of an export folder, after checking every shard against it.

    Raises:
        InvalidInputError: not an export, or a shard is missing or changed.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise InvalidInputError(f"{str(folder)!r} has no readable manifest.json. Name a folder made by `hfi export`.")
    for shard in _shards(manifest, *manifest["configs"]):
        path = folder / shard["path"]
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InvalidInputError(f"The export {str(folder)!r} names {shard['path']!r} outside itself. Don't use it.")
        if not path.is_file() or file_sha256(path) != shard["sha256"]:
            raise InvalidInputError(
                f"The file {shard['path']!r} of {str(folder)!r} is missing or changed. Get a whole copy of the export."
            )
    return manifest


def _shards(manifest: dict[str, Any], *configs: str) -> list[dict[str, Any]]:
    return [shard for config in configs for shard in manifest["configs"][config]["shards"]]


def import_export(
    store: Store, folder: Path, project_name: str | None = None, on_rows: OnRows | None = None
) -> ImportReport:
    """Import a folder made by ``export_snapshot``; run again, it adds only what is missing.

    Args:
        project_name: the project to make; default: the name it had.

    Raises:
        InvalidInputError: not a whole export; nothing has been written.
        ConflictError: the project exists and is of another kind, or the store holds these judgments under other names.
    """
    manifest = check_export(folder)
    notify = on_rows or (lambda step, n: None)
    settings = manifest["project"]
    project = _make_project(store, project_name or settings["name"], settings)
    report = ImportReport(project.name)
    renamed: dict[str, str] = {}
    for batch in batches(_rows(folder, manifest, "images"), _IMAGE_ROWS):
        _store_images(store, project, batch, renamed)
        report.n_images += len(batch)
        notify("stored", len(batch))
    items: dict[str, int] = {}
    for batch in batches(_rows(folder, manifest, "judgments"), _JUDGMENT_ROWS):
        _store_judgments(store, project, batch, renamed, items, settings["gold"])
        report.n_judgments += len(batch)
        notify("stored", len(batch))
    report.n_rows, report.n_items = report.n_images + report.n_judgments, len(items)
    report.snapshot = create_snapshot(store, project.name, manifest["rule"]).hash
    store.add_audit("import", project.name, {"snapshot": manifest["snapshot"]})
    return report


def _make_project(store: Store, name: str, settings: dict[str, Any]) -> Project:
    """The project with the categories and guideline versions it had."""
    names = ("annotators_per_item", "annotators_max", "posterior_threshold", "gold_fraction", "repeat_fraction")
    names += ("lease_seconds", "is_sensitive", "is_demo")  # type: ignore[assignment]
    (_, first), *later = settings["guidelines"]
    if name not in {project.name for project in store.list_projects()}:
        kept = {key: settings[key] for key in names}
        store.create_project(name, settings["kind"], settings["categories"], first, **kept)
    project = target_project(store, name, settings["kind"])
    for version, text in later:
        if version > project.guideline_version:
            project = store.add_guideline(name, text)
    return project


def _rows(folder: Path, manifest: dict[str, Any], config: str) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    for shard in _shards(manifest, config):
        for batch in pq.ParquetFile(folder / shard["path"]).iter_batches(batch_size=_IMAGE_ROWS):
            yield from batch.to_pylist()


def _store_images(store: Store, project: Project, rows: list[dict[str, Any]], renamed: dict[str, str]) -> None:
    """Store pictures and how they were made; ``renamed`` maps the hashes they had to the ones they have."""
    encoded = [encode_image(row["image"]["bytes"], f"image {row['sha256']}") for row in rows]
    with store.transaction():
        for row, record in zip(rows, store.add_encoded_images(encoded), strict=True):
            renamed[row["sha256"]] = record.sha256
            if row["seed"] is not None:
                store.add_generation(project.name, record.sha256, _generation(row))


def _generation(row: dict[str, Any]) -> GenerationParams:
    names = ("prompt", "seed", "negative_prompt", "scheduler", "num_inference_steps", "guidance_scale", "width")
    kept = {name: row[name] for name in (*names, "height", "model_id", "model_sha256", "guard", "role")}
    return GenerationParams(**kept, versions=json.loads(row["versions"]), extra=json.loads(row["extra"]))


def _store_judgments(
    store: Store,
    project: Project,
    rows: list[dict[str, Any]],
    renamed: dict[str, str],
    items: dict[str, int],
    gold: list[dict[str, Any]],
) -> None:
    known_gold = {entry["item"]: entry for entry in gold}
    with store.transaction():
        for name, is_simulated in {(row["annotator"], row["is_simulated"]) for row in rows}:
            add_imported_annotator(store, name, is_simulated)
        for row in rows:
            if row["item"] not in items:
                items[row["item"]] = _store_item(store, project, row, renamed, known_gold.get(row["item"]))
        store.import_judgments(
            (_judgment(row, items[row["item"]]), row["guideline_version"], row["purpose"]) for row in rows
        )


def _store_item(
    store: Store, project: Project, row: dict[str, Any], renamed: dict[str, str], gold: dict[str, Any] | None
) -> int:
    images = tuple(renamed[sha256] for sha256 in row["images"])
    item = ItemInput(images, row["prompt"], row["prompt_group"], row["category_hint"])
    record = store.add_items(project.name, [item])[0]
    if gold is not None and not record.is_gold:
        texts = (gold["answer"], gold["explanation"])
        store.add_gold(project.name, record.id, *texts, categories=gold["categories"], is_training=gold["is_training"])
    return record.id


def _judgment(row: dict[str, Any], item_id: int) -> JudgmentInput:
    return JudgmentInput(
        uuid=row["uuid"],
        annotator=row["annotator"],
        answer=row["answer"],
        item_id=item_id,
        categories=tuple(row["categories"]),
        score=row["score"],
        ranks=tuple(row["ranks"]),
        reason=row["reason"],
        note=row["note"],
        shown_order=tuple(row["shown_order"]),
        elapsed_ms=row["elapsed_ms"],
        revealed_ms=row["revealed_ms"],
        judged_at_us=int(row["judged_on"].timestamp()) * 1_000_000,
    )
