# mypy: disable-error-code="import-untyped"
"""A snapshot as a dataset folder that `datasets.load_dataset` reads, with nothing but the folder at hand.

The folder is written beside its place under another name, shard by shard, each shard recorded when it is whole; an
interrupted export goes on after its last whole shard, and the folder takes its name only when everything is in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage import sql
from storage.connection import explain_error
from storage.errors import ConflictError, StoreDamagedError
from storage.export_rows import CONFIGS, ExportSource, Row, encode_json, features_of
from storage.files import file_sha256, sync_folder, write_file_atomically

if TYPE_CHECKING:
    import pyarrow as pa

    from storage.store import Store

FORMAT = 1
MANIFEST = "manifest.json"
_PROGRESS = "unfinished.json"
# Pictures are held in memory for one row group at a time.
ROW_GROUP_BYTES = 32 * 1024 * 1024
ROW_GROUP_ROWS = 1000
SHARD_BYTES = 512 * 1024 * 1024

OnRows = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What an export is made with; the same snapshot and options give the same bytes.

    Args:
        with_notes: include annotators' free-text notes.
        license: the licence asked for, an identifier known to the Hub.
        shard_bytes: size at which a new parquet file is begun.
    """

    with_notes: bool = False
    license: str = "other"
    shard_bytes: int = SHARD_BYTES


def export_snapshot(
    store: Store,
    snapshot_hash: str,
    target: Path | str,
    options: ExportOptions | None = None,
    on_rows: OnRows | None = None,
) -> dict[str, Any]:
    """Write a snapshot as a dataset folder: parquet shards, README.md and manifest.json.

    Args:
        snapshot_hash: the hash or its first characters.
        target: a folder that doesn't exist yet; exporting the same again into it changes nothing.
        on_rows: called with the config's name and the number of rows just written, for a progress bar.

    Returns:
        The manifest.

    Raises:
        NotFoundError: no such snapshot.
        ConflictError: the folder holds something else.
        NoSpaceError: the disk is full; run it again when there is space, it goes on where it was.
    """
    from storage.card import write_card

    options, target = options or ExportOptions(), Path(target)
    source = ExportSource(store, snapshot_hash, options.with_notes)
    identity = {"format": FORMAT, "snapshot": source.snapshot_hash, "options": asdict(options)}
    finished = _finished_manifest(target, identity)
    if finished is not None:
        return finished
    try:
        unfinished = target.with_name(f".{target.name}.unfinished")
        shards = _resume(unfinished, identity)
        for config in CONFIGS:
            _write_config(source, config, unfinished, shards, identity, options, on_rows or (lambda name, n: None))
        manifest = _manifest(store, source, identity, shards)
        write_card(store, source.snapshot, manifest, unfinished)
        write_file_atomically(unfinished / MANIFEST, encode_json(manifest).encode("utf-8"))
        (unfinished / _PROGRESS).unlink()
        os.replace(unfinished, target)
        sync_folder(target.parent.absolute())
    except (OSError, sqlite3.Error) as error:
        raise explain_error(error, str(target)) from error
    store.add_audit("snapshot.export", source.snapshot_hash, {"content_sha256": manifest["content_sha256"]})
    return dict(json.loads(encode_json(manifest)))


def read_manifest(folder: Path | str) -> dict[str, Any] | None:
    """The manifest of an export folder, or None if it is not one."""
    try:
        manifest = json.loads((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


def _finished_manifest(target: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest in ``target`` if exactly this export is there already."""
    if not target.exists():
        return None
    manifest = read_manifest(target)
    if manifest is None or any(manifest.get(key) != value for key, value in identity.items()):
        raise ConflictError(f"{str(target)!r} exists and is not this export. Name a new folder.")
    return manifest


def _resume(unfinished: Path, identity: dict[str, Any]) -> list[dict[str, Any]]:
    """The shards that an interrupted export of the same kind has finished; anything else is cleared away."""
    try:
        progress = json.loads((unfinished / _PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        progress = {}
    shards: list[dict[str, Any]] = progress.get("shards", []) if progress.get("identity") == identity else []
    whole = [shard for shard in shards if _is_whole(unfinished, shard)]
    if shards != whole or not shards:
        whole = []
        shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True, exist_ok=True)
    return whole


def _is_whole(folder: Path, shard: dict[str, Any]) -> bool:
    path = folder / str(shard["path"])
    return path.is_file() and file_sha256(path) == shard["sha256"]


def _write_config(
    source: ExportSource,
    config: str,
    folder: Path,
    shards: list[dict[str, Any]],
    identity: dict[str, Any],
    options: ExportOptions,
    on_rows: OnRows,
) -> None:
    """Write the shards of one config that are not there yet."""
    done = [shard for shard in shards if shard["config"] == config]
    n_written = sum(shard["rows"] for shard in done)
    on_rows(config, n_written)
    if done and done[-1]["is_last"]:
        return
    rows = islice(source.rows(config), n_written, None)
    first = next(rows, None)
    number = len(done)
    while first is not None:
        path = folder / "data" / config / f"{number:05d}.parquet"
        n_rows, first = _write_shard(source, config, path, first, rows, options, on_rows)
        shards.append(
            {
                "config": config,
                "path": path.relative_to(folder).as_posix(),
                "rows": n_rows,
                "bytes": path.stat().st_size,
                "sha256": file_sha256(path),
                "is_last": first is None,
            }
        )
        progress = json.dumps({"identity": identity, "shards": shards}).encode("utf-8")
        write_file_atomically(folder / _PROGRESS, progress)
        number += 1


def _write_shard(
    source: ExportSource,
    config: str,
    path: Path,
    first: Row,
    rows: Iterator[Row],
    options: ExportOptions,
    on_rows: OnRows,
) -> tuple[int, Row | None]:
    """Write rows until the shard is full; returns how many, and the row that begins the next shard."""
    import pyarrow.parquet as pq

    schema = features_of(config).arrow_schema
    path.parent.mkdir(parents=True, exist_ok=True)
    n_rows, n_bytes, next_row = 0, 0, _Pending(first)
    with pq.ParquetWriter(path, schema, compression="zstd", write_statistics=False) as writer:
        while next_row.row is not None and n_bytes < options.shard_bytes:
            table, size = _row_group(source.store, config, schema, next_row, rows, options.shard_bytes - n_bytes)
            writer.write_table(table)
            n_rows, n_bytes = n_rows + table.num_rows, n_bytes + size
            on_rows(config, table.num_rows)
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    return n_rows, next_row.row


@dataclass(slots=True)
class _Pending:
    """The next row to write, None at the end."""

    row: Row | None


def _row_group(
    store: Store, config: str, schema: pa.Schema, pending: _Pending, rows: Iterator[Row], room: int
) -> tuple[pa.Table, int]:
    """The next rows with their pictures, as many as fit into one row group; and how many bytes they are."""
    import pyarrow as pa

    filled: list[Row] = []
    n_bytes = 0
    while pending.row is not None and n_bytes < min(ROW_GROUP_BYTES, room) and len(filled) < ROW_GROUP_ROWS:
        row, size = _with_pictures(store, config, pending.row)
        filled.append(row)
        n_bytes += size
        pending.row = next(rows, None)
    return pa.Table.from_pylist(filled, schema=schema), n_bytes


def _with_pictures(store: Store, config: str, row: Row) -> tuple[Row, int]:
    """A row with bytes in the place of its pictures' hashes, and about how many bytes it has."""
    cache: dict[str, bytes] = {}

    def content(sha256: str) -> bytes:
        if sha256 not in cache:
            cache[sha256] = _read_picture(store, sha256)
        return cache[sha256]

    def picture(sha256: str) -> Row:
        return {"bytes": content(sha256), "path": f"{sha256}.png"}

    if config == "images":
        row = {**row, "image": picture(row["image"])}
    elif config == "pairs":
        sides = {name: picture(row[name]) for name in ("chosen", "rejected")}
        row = {**row, **sides, "jpg_0": content(row["jpg_0"]), "jpg_1": content(row["jpg_1"])}
    elif config == "rankings":
        row = {**row, "images": [picture(sha256) for sha256 in row["images"]]}
    copies = 2 if config == "pairs" else 1
    return row, 300 + copies * sum(map(len, cache.values()))


def _read_picture(store: Store, sha256: str) -> bytes:
    try:
        content = store.image_path(sha256).read_bytes()
    except FileNotFoundError:
        content = b""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise StoreDamagedError(
            f"The file of image {sha256} is missing or changed. Run `hfi doctor` and put it back from a backup."
        )
    return content


def _manifest(
    store: Store, source: ExportSource, identity: dict[str, Any], shards: list[dict[str, Any]]
) -> dict[str, Any]:
    project = store.get_project(source.project)
    gold = [
        {"item": key, "answer": answer, **json.loads(expected), "explanation": text, "is_training": bool(is_training)}
        for key, answer, expected, text, is_training in store.connection.execute(sql.EXPORT_GOLD, (project.id,))
    ]
    settings = asdict(project)
    for name in ("id", "guideline_id", "guideline_version", "guideline", "created_at_us"):
        del settings[name]
    configs = {
        config: {
            "rows": sum(shard["rows"] for shard in shards if shard["config"] == config),
            "shards": [
                {key: shard[key] for key in ("path", "rows", "bytes", "sha256")}
                for shard in shards
                if shard["config"] == config
            ],
        }
        for config in CONFIGS
    }
    lines = "".join(f"{shard['sha256']}  {shard['path']}\n" for shard in shards)
    return {
        **identity,
        "rule": source.snapshot.rule,
        "project": {**settings, "guidelines": store.list_guidelines(project.name), "gold": gold},
        "configs": configs,
        "content_sha256": hashlib.sha256(lines.encode("utf-8")).hexdigest(),
    }
