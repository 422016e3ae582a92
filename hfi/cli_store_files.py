"""The store's commands that read and write folders: export, import, backup, restore and doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hfi.cli_store import (
    DEFAULT_STORE,
    THE_STORE,
    JsonOption,
    QuietOption,
    SnapshotArgument,
    StoreOption,
    counting,
    opened,
    show,
)


def register_files(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    from hfi.cli_jobs import export_request, import_request, or_in_background

    app.command("export", rich_help_panel=THE_STORE)(or_in_background(export_request)(export))
    app.command("import", rich_help_panel=THE_STORE)(or_in_background(import_request)(import_))
    app.command("backup", rich_help_panel=THE_STORE)(backup)
    app.command("restore", rich_help_panel=THE_STORE)(restore)
    app.command("doctor", rich_help_panel=THE_STORE)(doctor)


def export(
    snapshot: SnapshotArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that doesn't exist yet.")],
    push: Annotated[str, typer.Option(metavar="OWNER/NAME", help="Also upload it, privately, to the Hub.")] = "",
    public: Annotated[str, typer.Option(metavar="OWNER/NAME", help="Type the name again to make it public.")] = "",
    license_name: Annotated[str, typer.Option("--license", metavar="ID", help="The licence asked for.")] = "other",
    with_notes: Annotated[bool, typer.Option("--with-notes", help="Include annotators' free-text notes.")] = False,
    store: StoreOption = DEFAULT_STORE,
    quiet: QuietOption = False,
    is_json: JsonOption = False,
) -> None:
    """Write a snapshot as a dataset folder: judgments, images, pairs and rankings."""
    from storage.export import ExportOptions, export_snapshot
    from storage.push import push_export

    options = ExportOptions(with_notes=with_notes, license=license_name)
    with opened(store) as opened_store, counting(quiet or is_json, "export") as on_rows:
        manifest = export_snapshot(opened_store, snapshot, folder, options, on_rows)
    rows = {name: content["rows"] for name, content in manifest["configs"].items()}
    lines = [f"{folder}: " + ", ".join(f"{count} {name}" for name, count in rows.items()) + "."]
    found = {"folder": str(folder), "snapshot": manifest["snapshot"], "rows": rows}
    found["content_sha256"] = manifest["content_sha256"]
    if push:
        found["address"] = push_export(folder, push, typed_for_public=public)
        lines.append(f"Sent to {found['address']}.")
    show(found, is_json, "\n".join(lines))


def import_(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder of pictures, an export, or parquet.")],
    project: Annotated[str | None, typer.Option("--project", metavar="NAME", help="Project to import into.")] = None,
    source: Annotated[str, typer.Option(help="auto, export, folder, pick-a-pic or parquet.")] = "auto",
    kind: Annotated[str | None, typer.Option(help="Kind of a project that is made.")] = None,
    column: Annotated[
        list[str] | None, typer.Option("--map", metavar="FIELD=COLUMN", help="Column of a field; repeatable.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Import the good rows although some are bad.")] = False,
    store: StoreOption = DEFAULT_STORE,
    quiet: QuietOption = False,
    is_json: JsonOption = False,
) -> None:
    """Bring in feedback; every row is checked before the first is written, and running it again is harmless."""
    from storage.import_any import import_path

    mapping = parse_columns(column or [])
    with opened(store, create=True) as opened_store, counting(quiet or is_json, "import") as on_rows:
        report = import_path(
            opened_store,
            path,
            project,
            source=source,
            kind=kind,
            mapping=mapping,
            is_skipping_bad_rows=skip_bad,
            on_rows=on_rows,
        )
    lines = [
        f"Project {report.project!r}: {report.n_images} images, {report.n_items} items, {report.n_judgments} judgments."
    ]
    lines += [f"Refused: {text}" for text in report.refused]
    show(report.summarise(), is_json, "\n".join(lines))
    if report.refused:
        raise typer.Exit(1)


def parse_columns(columns: list[str]) -> dict[str, str]:
    """`image=img` -> {"image": "img"}.

    Raises:
        InvalidInputError: a text is not FIELD=COLUMN.
    """
    from storage.errors import InvalidInputError

    mapping = {}
    for text in columns:
        field, sign, column = text.partition("=")
        if not sign or not field or not column:
            raise InvalidInputError(f"--map {text!r} is not FIELD=COLUMN. Write it like image=img.")
        mapping[field] = column
    return mapping


def backup(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that doesn't exist yet.")],
    store: StoreOption = DEFAULT_STORE,
    quiet: QuietOption = False,
    is_json: JsonOption = False,
) -> None:
    """Copy the store, whole and checked, while others go on working."""
    from storage.backup import backup_store

    with opened(store) as opened_store, counting(quiet or is_json, "backup") as on_rows:
        manifest = backup_store(opened_store, folder, lambda name: on_rows(name, 1))
    found = {"folder": str(folder), "files": len(manifest["files"]), "counts": manifest["counts"]}
    show(found, is_json, f"{folder}: {len(manifest['files'])} files, checked.")


def restore(
    folder: Annotated[Path, typer.Argument(metavar="BACKUP", help="A folder made by `hfi backup`.")],
    store: StoreOption = DEFAULT_STORE,
    is_json: JsonOption = False,
) -> None:
    """Make a store from a backup; a store that is there is never overwritten."""
    from storage.backup import restore_store

    with restore_store(folder, store) as restored:
        found = {"store": str(store), "store_id": restored.store_id, "projects": len(restored.list_projects())}
    show(found, is_json, f"{store} is back. Check it: hfi doctor --store {store}")


def doctor(store: StoreOption = DEFAULT_STORE, is_json: JsonOption = False) -> None:
    """Check that everything is as it was written, and say what to do about what is not."""
    from storage.doctor import examine_store, summarise_findings

    findings = examine_store(store)
    summary = summarise_findings(findings)
    lines = [f"{finding.level}: {finding.message}. {finding.remedy}" for finding in findings]
    show(summary, is_json, "\n".join(lines) or "Everything is as it was written.")
    if not summary["is_sound"]:
        raise typer.Exit(1)
