"""Export: freeze a snapshot, look at what it holds, download it as a dataset, or send it to the Hub."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any

import gradio as gr

from hfi.job_requests import ExportRequest, PushRequest
from storage import Store
from storage.errors import InvalidInputError
from storage.labels import RULES_OF_KIND
from storage.records import Snapshot
from storage.snapshot import create_snapshot, diff_snapshots, list_snapshots, load_snapshot
from storage.validate import check_name
from ui.pages.frame import (
    RESEARCHER,
    Said,
    Shell,
    Visit,
    build_header,
    build_html,
    build_notice,
    build_project_choice,
    build_title,
    fill,
    format_day,
    job_html,
    on_load,
    project_choices,
)

N_KEPT = 8
ACTIVE = ("waiting", "running")
LICENSES = ("other", "apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0", "openrail")
POLL_SECONDS = 1.0
_LOADED: OrderedDict[tuple[str, str], Snapshot] = OrderedDict()


def build_export(shell: Shell) -> None:
    """The page for those who take the feedback elsewhere."""
    build_header(shell, "export")
    with gr.Column(elem_id="main"):
        build_title("Export", "Freeze what people said, look at it, and take it along.")
        with gr.Row(equal_height=True):
            project = build_project_choice()
            rule = gr.Dropdown([], label="How answers become labels", allow_custom_value=True)
        freeze = gr.Button("Freeze a snapshot", variant="primary", elem_classes="narrow")
        notice = build_notice()
        snapshot = gr.Dropdown([], label="Snapshot", allow_custom_value=True)
        facts = build_html(fill("waiting.html"))
        with gr.Row(equal_height=False):
            with gr.Column(min_width=300, elem_classes="panel"):
                _build_download(shell, project, snapshot)
            with gr.Column(min_width=300, elem_classes="panel"):
                _build_push(shell, project, snapshot)
    shell.on(project.change, show_snapshots, RESEARCHER, [project], [rule, snapshot, facts], notice)
    shell.on(snapshot.change, show_snapshot, RESEARCHER, [snapshot], [facts])
    inputs, outputs = [project, rule], [snapshot, facts]
    shell.on(freeze.click, freeze_snapshot, RESEARCHER, inputs, outputs, notice, show_progress="minimal")
    on_load(shell, open_export, RESEARCHER, [project])


def open_export(visit: Visit) -> Any:
    """The project choices; what the address names is chosen."""
    names, chosen = project_choices(visit)
    return gr.update(choices=names, value=chosen or None)


def show_snapshots(visit: Visit, name: str) -> tuple[Any, Any, str]:
    """The rules of the project's kind, its snapshots, and the newest one's facts."""
    if not name:
        empty = fill("nothing.html", sentence="There is no project yet. Set one up first.")
        return gr.update(choices=[], value=None), gr.update(choices=[], value=None), empty
    rules = list(RULES_OF_KIND[visit.store.get_project(name).kind])
    choices = snapshot_choices(visit.store, name)
    newest = choices[0][1] if choices else ""
    rule = gr.update(choices=rules, value=rules[0])
    return rule, gr.update(choices=choices, value=newest or None), show_snapshot(visit, newest)


def snapshot_choices(store: Store, name: str) -> list[tuple[str, str]]:
    """(what it says, hash) of a project's snapshots, newest first."""
    return [
        (
            f"{format_day(row['created_at_us'])} · {row['n_judgments']} judgments of {row['n_items']} items · "
            f"{row['rule']} · {row['hash'][:12]}",
            row["hash"],
        )
        for row in reversed(list_snapshots(store, name))
    ]


def freeze_snapshot(visit: Visit, name: str, rule: str) -> Said:
    """Freeze what stands judged now; the same judgments give the snapshot that is there already."""
    known = {row["hash"] for row in list_snapshots(visit.store, name)}
    snapshot = create_snapshot(visit.store, name, rule or "", actor=visit.user.name)
    choices = snapshot_choices(visit.store, name)
    is_new = snapshot.hash not in known
    sentence = f"Frozen as {snapshot.hash[:12]}." if is_new else "Nothing new was judged: this snapshot was there."
    return Said([gr.update(choices=choices, value=snapshot.hash), show_snapshot(visit, snapshot.hash)], sentence)


def show_snapshot(visit: Visit, snapshot_hash: str) -> str:
    """What a snapshot holds, and what has changed since the one before it."""
    if not snapshot_hash:
        return fill("nothing.html", sentence="Nothing is frozen yet. Freeze a snapshot when enough is judged.")
    snapshot = load(visit.store, snapshot_hash)
    labels = Counter(label.answer for label in snapshot.labels)
    categories = Counter(category for label in snapshot.labels for category in label.categories)
    changes = diff_snapshots(visit.store, snapshot.parent_hash, snapshot.hash) if snapshot.parent_hash else None
    return fill("snapshot.html", snapshot=snapshot, labels=labels, categories=categories, changes=changes)


def load(store: Store, snapshot_hash: str) -> Snapshot:
    """A snapshot without its judgments; it never changes, so the last ones are kept."""
    key = (str(store.path), snapshot_hash)
    if key not in _LOADED:
        _LOADED[key] = load_snapshot(store, snapshot_hash, with_judgments=False)
        while len(_LOADED) > N_KEPT:
            _LOADED.popitem(last=False)
    return _LOADED[key]


# --- taking it along ---------------------------------------------------------------------------------------------


def _build_download(shell: Shell, project: gr.Dropdown, snapshot: gr.Dropdown) -> None:
    build_html(fill("panel_title.html", title="Download", text="Parquet files, a card and a manifest, as one zip."))
    license_name = gr.Dropdown(list(LICENSES), value="other", label="Licence asked for", allow_custom_value=True)
    with_notes = gr.Checkbox(label="With annotators' notes (free text: read them first)")
    button = gr.Button("Make the dataset", variant="primary", elem_classes="narrow")
    shown, notice, timer, job_id = _build_watch(shell)
    inputs = [project, snapshot, license_name, with_notes]
    shell.on(button.click, submit_export, RESEARCHER, inputs, [shown, timer, job_id], notice)


def _build_push(shell: Shell, project: gr.Dropdown, snapshot: gr.Dropdown) -> None:
    text = "To a dataset repository; private unless you type its name a second time. The token comes from HF_TOKEN."
    build_html(fill("panel_title.html", title="Send to the Hub", text=text))
    repository = gr.Textbox(label="Repository", info="owner/name; made if it isn't there.", max_length=200)
    public = gr.Textbox(
        label="To make it public, type the name again", info="Empty = only you can read it.", max_length=200
    )
    license_name = gr.Dropdown(list(LICENSES), value="other", label="Licence asked for", allow_custom_value=True)
    button = gr.Button("Send", elem_classes="narrow")
    shown, notice, timer, job_id = _build_watch(shell)
    inputs = [project, snapshot, repository, public, license_name]
    shell.on(button.click, submit_push, RESEARCHER, inputs, [shown, timer, job_id], notice)


def _build_watch(shell: Shell) -> tuple[gr.HTML, gr.HTML, gr.Timer, gr.Textbox]:
    """A box that follows a job until it has ended."""
    notice = build_notice()
    shown, job_id, timer = build_html(""), gr.Textbox(visible="hidden"), gr.Timer(POLL_SECONDS, active=False)
    shell.on(timer.tick, watch_job, RESEARCHER, [job_id], [shown, timer])
    return shown, notice, timer, job_id


def submit_export(visit: Visit, name: str, snapshot_hash: str, license_name: str, with_notes: bool) -> Said:
    """Hand the writing of a dataset over to the queue."""
    snapshot = _check_snapshot(visit, name, snapshot_hash)
    fields: dict[str, Any] = {"license": _check_license(license_name), "with_notes": bool(with_notes)}
    job = visit.queue.submit(ExportRequest(project=name, snapshot=snapshot, **fields), user=visit.user.name).job
    return Said([job_html(job), gr.update(active=True), job.id], "It is being made in the background.")


def submit_push(
    visit: Visit, name: str, snapshot_hash: str, repository: str, typed_for_public: str, license_name: str
) -> Said:
    """Hand the sending of a dataset over to the queue."""
    snapshot, repository = _check_snapshot(visit, name, snapshot_hash), repository.strip()
    typed_for_public = typed_for_public.strip()
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise InvalidInputError(f"{repository!r} is not a repository name. Write it as owner/name.")
    if typed_for_public and typed_for_public != repository:
        raise InvalidInputError(
            f"To make it public, type its name {repository!r}; got {typed_for_public!r}. Nothing was sent."
        )
    fields = {"repository": repository, "typed_for_public": typed_for_public, "license": _check_license(license_name)}
    job = visit.queue.submit(PushRequest(project=name, snapshot=snapshot, **fields), user=visit.user.name).job
    readers = "Everybody will be able to read it." if typed_for_public else "It will be private."
    return Said([job_html(job), gr.update(active=True), job.id], f"It is being sent in the background. {readers}")


def _check_snapshot(visit: Visit, name: str, snapshot_hash: str) -> str:
    if not snapshot_hash:
        raise InvalidInputError("No snapshot is chosen. Freeze one, or choose one above.")
    snapshot = load(visit.store, snapshot_hash)
    if snapshot.project != name:
        raise InvalidInputError(
            f"Snapshot {snapshot.hash[:12]} is of project {snapshot.project!r}, not {name!r}. Choose another one."
        )
    return snapshot.hash


def _check_license(name: str) -> str:
    return check_name(name or "other", "licence")


def watch_job(visit: Visit, job_id: str) -> tuple[str, Any]:
    """How a job stands; the timer stops when it has ended, and what it made can be downloaded."""
    if not job_id:
        return "", gr.update(active=False)
    job = visit.queue.get_job(job_id)
    html = job_html(job)
    if job.state == "done" and job.kind == "export":
        html += fill("download.html", run_id=job.run_id)
    return html, gr.update(active=job.state in ACTIVE)
