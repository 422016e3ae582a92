"""Library: erased models, tokens, score models and datasets, each with what it was made from down to the judgments, and
to take along in every format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from hfi.job_requests import SaveRequest
from hfi.jobs.invert import TOKENS_ARTIFACT
from hfi.jobs.job_kinds import DATASET_ARTIFACT, SAVED_ARTIFACT
from hfi.jobs.queue import ACTIVE, Job
from hfi.jobs.score import SCORE_ARTIFACT
from storage import Store
from storage.records import Artifact, Run
from storage.snapshot import list_snapshots
from ui.pages.frame import (
    RESEARCHER,
    Shell,
    Visit,
    build_header,
    build_html,
    build_project_choice,
    build_title,
    fill,
    format_day,
    on_load,
    project_choices,
)
from ui.pages.job_fields import Fields
from ui.pages.jobs_frame import JobForm, JobWatch, build_uncovers

MODEL_ARTIFACT, WEIGHTS_NAME = "model", "learned_embeds.safetensors"
KINDS = ("erase", "invert", "score", "export", "save", "evaluate")
FORMATS = (
    ("Folder of diffusers", "folder"),
    ("One file, for A1111 and ComfyUI", "single-file"),
    ("Only what changed (delta)", "delta"),
    ("LoRA", "lora"),
)
NAMES_OF_FORMATS = {name: label for label, name in FORMATS}
METHODS = {
    "sdd": "self-distillation",
    "esd": "ESD",
    "abo": "All but One",
    "closed_form": "closed form",
    "robust": "rounds",
}


def build_library(shell: Shell) -> None:
    """The page for those who take what was made elsewhere, or ask where it comes from."""
    build_header(shell, "library")
    with gr.Column(elem_id="main"):
        build_title("Library", "What was made from people's judgments, where it comes from, and how to take it along.")
        project = build_project_choice()
        uncovers = build_uncovers()
        board = build_html(fill("waiting.html"), "board-place")
        with gr.Accordion("Save an erased model in another format", open=False) as saving:
            form, source, button = _build_saving(shell, project)
            form.build_notice()
        watch = JobWatch(shell, ("save",), project)
        watch.follow(show_saved, [board])
        form.connect(button, watch, read_saving)
        watch.connect()
    outputs = [board, source, saving, uncovers]
    shell.on(project.change, show_library, RESEARCHER, [project], outputs)
    on_load(shell, open_library, RESEARCHER, [project, board])


def _build_saving(shell: Shell, project: gr.Dropdown) -> tuple[JobForm, Any, gr.Button]:
    form = JobForm(shell, SaveRequest, project)
    with gr.Row(equal_height=False):
        source = form.add("source", "", lambda: gr.Dropdown([], label="Model", filterable=False), min_width=300)
        form.add("config.format", "Format", info="", choices=list(FORMATS), value="single-file", min_width=220)
        form.add("config.dtype", "Precision", info="", min_width=120)
        form.add("config.lora_rank", "Rank of a LoRA", info="", min_width=120)
    return form, source, gr.Button("Save it", variant="primary", elem_classes="narrow")


def open_library(visit: Visit) -> tuple[Any, Any]:
    """The project choices; what the address names is chosen."""
    names, chosen = project_choices(visit)
    empty = fill("nothing.html", sentence="There is no project yet. Set one up first.")
    return gr.update(choices=names, value=chosen or None), gr.skip() if names else empty


def read_saving(visit: Visit, fields: Fields) -> None:
    """A model must be chosen."""
    if not fields.values["source"]:
        fields.problems["source"] = "No model is chosen. Erase something first, then choose its model here."


def show_library(visit: Visit, name: str) -> tuple[Any, ...]:
    """What a project has, its erased models to choose from, and the switch that uncovers."""
    project = visit.store.get_project(name or "")
    runs = Runs(visit.store, project.name)
    choices = [(f"{format_day(run.finished_at_us)} · {method_of(run)} · {run.id}", run.id) for run in runs.of("erase")]
    return (
        library_html(visit, project.name),
        gr.update(choices=choices, value=choices[0][1] if choices else None),
        gr.update(visible=bool(choices)),
        gr.update(visible=project.is_sensitive),
    )


def show_saved(visit: Visit, job: Job | None) -> Any:
    """What the project has, anew, when a model was saved."""
    return gr.skip() if job is None or job.state in ACTIVE else library_html(visit, job.project)


def method_of(run: Run) -> str:
    """How an erasing run is called: its method in words."""
    method = str(run.config.get("config", {}).get("method", ""))
    return METHODS.get(method, method)


# --- what there is, and where it comes from ----------------------------------------------------------------------


@dataclass(frozen=True)
class Link:
    """One step of the way back to the judgments."""

    title: str
    text: str
    address: str = ""


class Runs:
    """The finished runs of a project, newest first, read once."""

    def __init__(self, store: Store, project: str) -> None:
        self.store, self.project = store, project
        self.all = [run for run in reversed(store.list_runs(status="done")) if run.config.get("project") == project]
        self._by_id = {run.id: run for run in self.all}
        self.snapshots = {row["hash"]: row for row in list_snapshots(store, project)}

    def of(self, kind: str) -> list[Run]:
        """Those of a kind that made something that is still there."""
        return [run for run in self.all if run.kind == kind and (kind == "evaluate" or self.artifacts(run))]

    def artifacts(self, run: Run) -> list[Artifact]:
        """What a run made."""
        return [made for made in self.store.list_artifacts(run.id) if (self.store.path / made.path).exists()]

    def find(self, run_id: object) -> Run | None:
        """The run of that id."""
        return self._by_id.get(str(run_id or ""))

    def chain(self, run: Run | None) -> list[Link]:
        """The way back from a run to the judgments, a step an entry."""
        if run is None:
            return []
        inputs = run.config.get("inputs", {})
        if run.kind == "erase":
            token_run, score_run = self.find(inputs.get("token_run")), self.find(inputs.get("score_run"))
            tokens = [_link_of_tokens(token_run)] if token_run else []
            return [*tokens, *([_link_of_score(score_run)] if score_run else []), *self.to_judgments(run)]
        if run.kind == "invert":
            score_run = self.find(inputs.get("score_run"))
            return [*([_link_of_score(score_run)] if score_run else []), *self.to_judgments(run)]
        return self.to_judgments(run)

    def to_judgments(self, run: Run) -> list[Link]:
        """The snapshot of a run, and what was frozen in it."""
        snapshot = self.snapshots.get(run.snapshot_hash)
        if snapshot is None:
            return []
        simulated = f", {snapshot['n_simulated']} of them simulated" if snapshot["n_simulated"] else ""
        people = f"{snapshot['n_judgments']:,} judgments of {snapshot['n_items']:,} items"
        return [
            Link(f"Snapshot {run.snapshot_hash[:12]}", f"labels by {snapshot['rule']}", "/export"),
            Link(people, f"by {snapshot['n_annotators']} annotators{simulated}", "/gallery"),
        ]


def _link_of_score(run: Run) -> Link:
    auroc = run.metrics.get("auroc")
    told = f"AUROC {auroc:.3f}" if isinstance(auroc, float) else "not measured"
    return Link(f"Score model {run.id}", told, "/concept")


def _link_of_tokens(run: Run) -> Link:
    covered = 100 * float(run.metrics.get("coverage") or 0)
    return Link(f"Tokens {run.id}", f"{run.metrics.get('tokens')} tokens cover {covered:.0f} %", "/concept")


def library_html(visit: Visit, name: str) -> str:
    """Everything a project has, by kind."""
    runs, project = Runs(visit.store, name), visit.store.get_project(name)
    saved: dict[str, list[dict[str, Any]]] = {}
    for run in runs.of("save"):
        saved.setdefault(str(run.metrics.get("source")), []).append(_describe_saved(runs, run))
    return fill(
        "library.html",
        project=project,
        models=[describe_model(runs, run, saved.get(run.id, [])) for run in runs.of("erase")],
        tokens=[describe_tokens(runs, run) for run in runs.of("invert")],
        scores=[describe_score(runs, run) for run in runs.of("score")],
        datasets=[describe_dataset(runs, run) for run in runs.of("export")],
    )


def _described(runs: Runs, run: Run, title: str, facts: Sequence[str]) -> dict[str, Any]:
    size = sum(artifact.size_bytes for artifact in runs.artifacts(run))
    told = [fact for fact in facts if fact]
    cost = [f"{run.seconds:.0f} s"] if run.seconds else []
    chain = runs.chain(run)
    return {"run": run, "title": title, "facts": told, "cost": cost, "chain": chain, "size": format_bytes(size)}


def describe_model(runs: Runs, run: Run, saved: list[dict[str, Any]]) -> dict[str, Any]:
    """An erased model: what of, what is left of the concept, and its formats."""
    config, measured = run.config.get("config", {}), _newest_evaluation(runs, run)
    base = f"made from {config.get('model', '?')}"
    content = _described(runs, run, f"{method_of(run)}, {config.get('targets', '')}", [base, measured])
    folder = ("Folder of diffusers", f"/artifact/{run.id}/{MODEL_ARTIFACT}.zip", content["size"])
    return {**content, "downloads": [folder, *((row["label"], row["address"], row["size"]) for row in saved)]}


def _describe_saved(runs: Runs, run: Run) -> dict[str, Any]:
    config, file = run.config.get("config", {}), str(run.metrics.get("file", ""))
    size = sum(artifact.size_bytes for artifact in runs.artifacts(run))
    kind = str(config.get("format", ""))
    rank = f", rank {config.get('lora_rank')}" if kind == "lora" else ""
    label = f"{NAMES_OF_FORMATS.get(kind, kind)}{rank}, {config.get('dtype', '')}"
    is_folder = kind == "folder"
    address = f"/artifact/{run.id}/{SAVED_ARTIFACT}/{file}{'.zip' if is_folder else ''}"
    return {"label": label, "address": address, "size": format_bytes(size)}


def _newest_evaluation(runs: Runs, run: Run) -> str:
    for found in runs.of("evaluate"):
        if found.metrics.get("erased_run") == run.id:
            return f"measured by run {found.id}, see Results"
    return "not measured yet"


def describe_tokens(runs: Runs, run: Run) -> dict[str, Any]:
    """The tokens of an inversion, each in two layouts."""
    covered = f"cover {100 * float(run.metrics.get('coverage') or 0):.0f} % of the flagged pictures"
    content = _described(runs, run, f"{run.metrics.get('tokens')} concept tokens", [covered])
    root = f"/artifact/{run.id}/{TOKENS_ARTIFACT}"
    cards = [
        {
            "placeholder": card["placeholder"],
            "concept_score": card["concept_score"],
            "pictures": [f"{root}/{card['folder']}/{name}" for name in card["previews"][:3]],
            "file": WEIGHTS_NAME,
            "diffusers": f"{root}/{card['folder']}/{WEIGHTS_NAME}",
            "webui": f"{root}/{card['folder']}/webui/{card['folder']}.safetensors",
        }
        for card in _cards(runs.store, run)
    ]
    return {**content, "cards": cards, "downloads": [("All of them with their cards", f"{root}.zip", content["size"])]}


def _cards(store: Store, run: Run) -> list[dict[str, Any]]:
    path = store.path / "artifacts" / run.id / TOKENS_ARTIFACT / "tokens.json"
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["tokens"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def describe_score(runs: Runs, run: Run) -> dict[str, Any]:
    """A score model."""
    figures = run.metrics
    if figures.get("auroc") is None:
        told = "too little was held out to measure it"
    else:
        told = f"AUROC {figures['auroc']:.3f}, 95 % from {figures['low']:.3f} to {figures['high']:.3f}"
    content = _described(runs, run, "Score model", [f"{figures.get('images')} pictures", told])
    address = f"/artifact/{run.id}/{SCORE_ARTIFACT}.zip"
    return {**content, "downloads": [("Ensemble and scores", address, content["size"])]}


def describe_dataset(runs: Runs, run: Run) -> dict[str, Any]:
    """An exported dataset."""
    rows = run.metrics.get("rows", {})
    told = ", ".join(f"{count:,} {name}" for name, count in rows.items())
    content = _described(runs, run, "Dataset", [told])
    downloads = [("Parquet, card and manifest", f"/download/{run.id}.zip", content["size"])]
    return {**content, "downloads": downloads if _has_dataset(runs, run) else []}


def _has_dataset(runs: Runs, run: Run) -> bool:
    return any(artifact.name == DATASET_ARTIFACT for artifact in runs.artifacts(run))


def format_bytes(size: int) -> str:
    """12 kB, 3.4 MB: as file managers say it."""
    value, units = float(size), ("B", "kB", "MB", "GB", "TB")
    step = 0
    while value >= 1000 and step < len(units) - 1:
        value, step = value / 1000, step + 1
    return f"{value:.1f} {units[step]}" if step and value < 10 else f"{value:.0f} {units[step]}"
