"""The store's commands: projects, annotators, snapshots, statistics, export and import, backup, restore and doctor.

Each opens the store, calls one function and prints what came of it: for people, or as JSON with ``--json``. Nothing
here imports torch, and pandas or datasets only when a command needs them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from storage import Store

THE_STORE = "The store"
DEFAULT_STORE = Path("hfi-store")

StoreOption = Annotated[
    Path, typer.Option("--store", envvar="HFI_STORE", metavar="FOLDER", help="Folder of images, judgments and runs.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
ProjectArgument = Annotated[str, typer.Argument(metavar="PROJECT", help="Name of the project.")]
SnapshotArgument = Annotated[str, typer.Argument(metavar="SNAPSHOT", help="Its hash, or the first 6 characters on.")]

project_app = typer.Typer(help="Make and show projects.", no_args_is_help=True)
annotator_app = typer.Typer(help="Add and disable annotators.", no_args_is_help=True)
snapshot_app = typer.Typer(help="Freeze judgments, and show or compare what was frozen.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the store's commands to ``app``."""
    from hfi.cli_store_files import register_files

    app.add_typer(project_app, name="project", rich_help_panel=THE_STORE)
    app.add_typer(annotator_app, name="annotator", rich_help_panel=THE_STORE)
    app.add_typer(snapshot_app, name="snapshot", rich_help_panel=THE_STORE)
    app.command("stats", rich_help_panel=THE_STORE)(stats)
    register_files(app)


@contextmanager
def opened(path: Path, *, create: bool = False) -> Iterator[Store]:
    """The store in a folder, closed at the end; only commands that add something make a new one."""
    from storage import Store

    with Store.open(path, create=create) as store:
        yield store


def show(content: Mapping[str, Any] | Sequence[Mapping[str, Any]], is_json: bool, text: str) -> None:
    """Print ``content`` as JSON, or ``text``."""
    typer.echo(json.dumps(content, indent=1, ensure_ascii=False, default=str) if is_json else text)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as aligned text under their columns' names."""
    lines = [list(columns), *([_shown(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


@contextmanager
def counting(is_quiet: bool, stage: str) -> Iterator[Callable[[str, int], None]]:
    """A progress line that counts rows; silent with ``is_quiet``."""
    from hfi.progress import build_progress

    progress = build_progress(is_quiet)
    progress.start(stage)
    yield lambda name, n: progress.advance(n)
    progress.finish()


@project_app.command("create")
def create_project(
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 40 letters, digits, blanks or . - _")],
    kind: Annotated[str, typer.Option(help="What is asked: flag, score, pair or ranking.")] = "flag",
    category: Annotated[list[str] | None, typer.Option(help="A category for flagged images; repeatable.")] = None,
    guideline: Annotated[str, typer.Option(metavar="TEXT", help="What annotators are told.")] = "",
    guideline_file: Annotated[Path | None, typer.Option(metavar="FILE", help="... from a UTF-8 text file.")] = None,
    annotators_per_item: Annotated[int, typer.Option(metavar="K", help="People who judge each item.")] = 3,
    is_sensitive: Annotated[bool, typer.Option("--sensitive", help="Blur the pictures until revealed.")] = False,
    store: StoreOption = DEFAULT_STORE,
    is_json: JsonOption = False,
) -> None:
    """Make a project."""
    text = _read_text(guideline_file) if guideline_file else guideline
    with opened(store, create=True) as opened_store:
        project = opened_store.create_project(
            name,
            kind=kind,
            categories=category or [],
            guideline=text,
            annotators_per_item=annotators_per_item,
            is_sensitive=is_sensitive,
        )
    show(asdict(project), is_json, f"Made the {project.kind} project {project.name!r}.")


def _read_text(path: Path) -> str:
    from storage.errors import InvalidInputError

    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"The file {str(path)!r} can't be read as UTF-8 text ({error}). Check it.") from None


@project_app.command("list")
def list_projects(store: StoreOption = DEFAULT_STORE, is_json: JsonOption = False) -> None:
    """List all projects."""
    with opened(store) as opened_store:
        rows = [asdict(project) for project in opened_store.list_projects()]
    columns = ("name", "kind", "annotators_per_item", "guideline_version", "is_sensitive", "is_demo")
    show(rows, is_json, table(rows, columns) if rows else "No projects yet. Make one: hfi project create NAME")


@project_app.command("show")
def show_project(name: ProjectArgument, store: StoreOption = DEFAULT_STORE, is_json: JsonOption = False) -> None:
    """Show a project's settings, guideline and how far its items are."""
    from collections import Counter

    with opened(store) as opened_store:
        project = opened_store.get_project(name)
        statuses = Counter(item.status for item in opened_store.list_items(name))
    content = {**asdict(project), "items": dict(statuses)}
    shown = [{"setting": key, "value": value} for key, value in content.items() if key not in ("id", "guideline_id")]
    show(content, is_json, table(shown, ("setting", "value")))


@annotator_app.command("add")
def add_annotator(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A pseudonym, never a real name.")],
    role: Annotated[str, typer.Option(help="annotator, reviewer, researcher or owner.")] = "annotator",
    is_simulated: Annotated[bool, typer.Option("--simulated", help="A program that plays an annotator.")] = False,
    store: StoreOption = DEFAULT_STORE,
    is_json: JsonOption = False,
) -> None:
    """Add an annotator."""
    with opened(store, create=True) as opened_store:
        user = opened_store.add_annotator(name, role=role, is_simulated=is_simulated)
    show(asdict(user), is_json, f"{user.name!r} can judge as {user.role}.")


@annotator_app.command("list")
def list_annotators(store: StoreOption = DEFAULT_STORE, is_json: JsonOption = False) -> None:
    """List all annotators."""
    with opened(store) as opened_store:
        rows = [asdict(user) for user in opened_store.list_users()]
    text = table(rows, ("name", "role", "is_simulated", "is_disabled"))
    show(rows, is_json, text if rows else "No annotators yet. Add one: hfi annotator add NAME")


@annotator_app.command("disable")
def disable_annotator(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The annotator's pseudonym.")],
    is_withdrawn: Annotated[
        bool, typer.Option("--withdraw", help="Also take back what they judged: new snapshots hold none of it.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    is_json: JsonOption = False,
) -> None:
    """Stop an annotator from judging; what they judged stays, unless they withdraw it."""
    from storage.snapshot import withdraw_annotator

    with opened(store) as opened_store:
        made = withdraw_annotator(opened_store, name) if is_withdrawn else []
        user = opened_store.get_annotator(name) if is_withdrawn else opened_store.disable_annotator(name)
    lines = [f"{user.name!r} can judge no longer."]
    if is_withdrawn:
        lines.append("No later snapshot holds their judgments; older ones stay, because models name them.")
        lines += [f"New snapshot of {snapshot.project!r} without them: {snapshot.hash}" for snapshot in made]
    else:
        lines.append("Their judgments stay.")
    new = {snapshot.project: snapshot.hash for snapshot in made}
    show({**asdict(user), "new_snapshots": new}, is_json, "\n".join(lines))


@snapshot_app.command("create")
def create_snapshot_command(
    project: ProjectArgument,
    rule: Annotated[str, typer.Option(help="How answers become labels; default: the kind's own.")] = "",
    store: StoreOption = DEFAULT_STORE,
    is_json: JsonOption = False,
) -> None:
    """Freeze a project's judgments under a hash."""
    from storage.snapshot import create_snapshot

    with opened(store) as opened_store:
        snapshot = create_snapshot(opened_store, project, rule)
    head = {"hash": snapshot.hash, "project": project, "rule": snapshot.rule, "n_judgments": snapshot.n_judgments}
    head |= {"n_items": snapshot.n_items, "n_annotators": snapshot.n_annotators, "n_simulated": snapshot.n_simulated}
    show(head, is_json, f"{snapshot.hash}\n{snapshot.n_judgments} judgments of {snapshot.n_items} items.")


@snapshot_app.command("list")
def list_snapshots_command(store: StoreOption = DEFAULT_STORE, is_json: JsonOption = False) -> None:
    """List all snapshots."""
    from storage.snapshot import list_snapshots

    with opened(store) as opened_store:
        rows = list_snapshots(opened_store)
    text = table(rows, ("hash", "project", "rule", "n_judgments", "n_items", "n_annotators"))
    show(rows, is_json, text if rows else "No snapshots yet. Make one: hfi snapshot create PROJECT")


@snapshot_app.command("show")
def show_snapshot(snapshot: SnapshotArgument, store: StoreOption = DEFAULT_STORE, is_json: JsonOption = False) -> None:
    """Show what a snapshot holds, its agreement and its labels."""
    from collections import Counter

    from storage.snapshot import load_snapshot

    with opened(store) as opened_store:
        found = load_snapshot(opened_store, snapshot, with_judgments=False)
    names = ("hash", "project", "kind", "rule", "parent_hash", "guideline_versions", "n_judgments", "n_items")
    content = {name: getattr(found, name) for name in (*names, "n_annotators", "n_simulated", "agreement")}
    content["labels"] = dict(Counter(label.answer for label in found.labels))
    shown = [{"what": key, "value": value} for key, value in content.items() if key != "agreement"]
    alpha = {key: found.agreement.get(key) for key in ("alpha", "low", "high")}
    shown.append({"what": "agreement", "value": ", ".join(f"{key} {_shown(value)}" for key, value in alpha.items())})
    show(content, is_json, table(shown, ("what", "value")))


@snapshot_app.command("diff")
def diff_snapshots_command(
    old: SnapshotArgument, new: SnapshotArgument, store: StoreOption = DEFAULT_STORE, is_json: JsonOption = False
) -> None:
    """Say what changed between two snapshots of one project."""
    from storage.snapshot import diff_snapshots

    with opened(store) as opened_store:
        found = diff_snapshots(opened_store, old, new)
    shown = [{"what": key, "n": len(value) if isinstance(value, list) else value} for key, value in found.items()]
    show(found, is_json, table(shown, ("what", "n")))


def stats(project: ProjectArgument, store: StoreOption = DEFAULT_STORE, is_json: JsonOption = False) -> None:
    """Show a project's counts, agreement, and each annotator's accuracy, consistency and pace."""
    from storage.stats import measure_project

    with opened(store) as opened_store:
        found = measure_project(opened_store, project)
    alpha = found["agreement"] or {}
    shown = [_shown(alpha.get(name)) for name in ("alpha", "low", "high")]
    head = [
        f"{found['n_judgments']} judgments by {found['n_annotators']} annotators ({found['n_simulated']} simulated).",
        "Items: " + ", ".join(f"{count} {status}" for status, count in found["items"].items()) + ".",
        "Answers: " + (", ".join(f"{count} {answer}" for answer, count in found["answers"].items()) or "none") + ".",
        f"Krippendorff's alpha {shown[0]}, 95 % interval {shown[1]} to {shown[2]}.",
    ]
    columns = ("annotator", "is_simulated", "n_judgments", "gold_right", "gold_seen", "repeats_same", "repeats_seen")
    rows = table(found["annotators"], (*columns, "median_seconds"))
    show(found, is_json, "\n".join([*head, "", rows]))
