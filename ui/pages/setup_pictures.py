"""The part of set-up that adds pictures: by upload, by import on the server, or by generating."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from hfi.cli_inputs import parse_seeds
from hfi.job_requests import GenerateRequest, ImportRequest, parse_request
from storage.errors import HFIError, InvalidInputError
from storage.gallery import GalleryFilter
from storage.items import IMAGES_PER_ITEM
from storage.records import ItemInput, Project
from ui.pages.frame import (
    RESEARCHER,
    Said,
    Shell,
    Visit,
    build_html,
    build_notice,
    build_project_choice,
    fill,
    job_html,
)

FILE_TYPES = [".png", ".jpg", ".jpeg", ".webp"]
MAX_FILES = 2000
MAX_FILE_BYTES = 64 * 2**20
MAX_PICTURES_OF_A_JOB = 100_000
N_SHOWN_REFUSALS = 10


def build_pictures(shell: Shell) -> gr.Dropdown:
    """Three ways to add pictures to a project, and what it has so far."""
    project = build_project_choice()
    so_far = build_html("")
    with gr.Tabs():
        with gr.Tab("Upload", render_children=True):
            _build_upload(shell, project, so_far)
        with gr.Tab("Generate", render_children=True):
            _build_generate(shell, project)
        with gr.Tab("Import on the server", render_children=True):
            _build_import(shell, project)
    shell.on(project.change, show_pictures, RESEARCHER, [project], [so_far])
    return project


def show_pictures(visit: Visit, name: str) -> str:
    """The newest pictures of a project and how many there are."""
    if not name:
        return fill("nothing.html", sentence="Create a project first.")
    project = visit.store.get_project(name)
    page = visit.store.list_pictures(name, GalleryFilter(), page_size=12)
    counts = visit.store.count_items(name)
    return fill("setup_pictures.html", project=project, page=page, counts=counts)


# --- upload ------------------------------------------------------------------------------------------------------


def _build_upload(shell: Shell, project: gr.Dropdown, so_far: gr.HTML) -> None:
    files = gr.File(label="PNG, JPEG or WEBP files", file_count="multiple", file_types=FILE_TYPES, type="filepath")
    with gr.Row():
        prompt = gr.Textbox(label="Prompt they were made from", info="May stay empty.", scale=3, max_length=2000)
        per_item = gr.Number(
            1, label="Pictures an item", info="1 for flag and score, 2 for pair, 2 to 9 for ranking.", precision=0
        )
    button = gr.Button("Add to the project", variant="primary", elem_classes="narrow")
    notice = build_notice()
    refused = build_html("")
    inputs = [project, files, prompt, per_item]
    shell.on(button.click, add_uploads, RESEARCHER, inputs, [files, so_far, refused], notice, show_progress="minimal")
    shell.on(project.change, propose_per_item, RESEARCHER, [project], [per_item])


def propose_per_item(visit: Visit, name: str) -> int:
    """How many pictures an item of the project has, unless it says otherwise."""
    if not name:
        return 1
    project = visit.store.get_project(name)
    return {"pair": 2, "ranking": visit.store.get_care(name).rank_size}.get(project.kind, 1)


def add_uploads(visit: Visit, name: str, files: Sequence[str] | None, prompt: str, per_item: float) -> Said:
    """Store uploaded files and put them up for judging; what is refused is listed with the reason."""
    project, paths = visit.store.get_project(name), [Path(file) for file in files or ()]
    if not 1 <= len(paths) <= MAX_FILES:
        raise InvalidInputError(f"Choose 1 to {MAX_FILES} picture files, got {len(paths)}.")
    size = _check_per_item(project, per_item)
    hashes, refusals = [], []
    for path in paths:
        try:
            hashes.append(visit.store.add_image(_read(path), path.name).sha256)
        except HFIError as error:
            refusals.append(str(error))
    hashes = list(dict.fromkeys(hashes))
    groups = [tuple(hashes[first : first + size]) for first in range(0, len(hashes) - size + 1, size)]
    before = sum(visit.store.count_items(name).values())
    visit.store.add_items(name, [ItemInput(group, prompt) for group in groups])
    n_new = sum(visit.store.count_items(name).values()) - before
    left = len(hashes) - size * len(groups)
    sentences = [f"{len(hashes)} pictures stored, {n_new} new items to judge."]
    sentences += [f"{left} left over: they don't fill an item of {size}."] if left else []
    sentences += [f"{len(refusals)} refused, see below."] if refusals else []
    listing = fill("refusals.html", refusals=refusals[:N_SHOWN_REFUSALS], n=len(refusals))
    tone: Any = "bad" if refusals and not hashes else "good"
    return Said([None, show_pictures(visit, name), listing], " ".join(sentences), tone)


def _check_per_item(project: Project, per_item: float) -> int:
    low, high = IMAGES_PER_ITEM[project.kind]
    if per_item is None or not low <= per_item <= high:
        expected = str(low) if low == high else f"{low} to {high}"
        raise InvalidInputError(
            f"An item of the {project.kind} project {project.name!r} has {expected} pictures, got {per_item!r}. "
            "Change the number of pictures an item."
        )
    return int(per_item)


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InvalidInputError(f"{path.name!r} is larger than {MAX_FILE_BYTES // 2**20} MiB. Make it smaller.")
    return path.read_bytes()


# --- generating --------------------------------------------------------------------------------------------------


def _build_generate(shell: Shell, project: gr.Dropdown) -> None:
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300):
            prompts = gr.Textbox(label="Prompts", info="One a line; each is drawn with every seed.", lines=6)
        with gr.Column(scale=2, min_width=300):
            seeds = gr.Textbox("0-9", label="Seeds", info="For instance 0-9 or 3,5,8.")
            model = gr.Textbox("mini", label="Model", info="Folder on the server or Hub id; mini = the embedded one.")
            with gr.Row():
                steps = gr.Number(25, label="Steps", precision=0)
                guidance = gr.Number(3.0, label="Guidance")
    inputs = [project, prompts, seeds, model, steps, guidance]
    with gr.Row():
        button = gr.Button("Hand over to the queue", variant="primary", elem_classes="narrow")
        command = gr.Button("Show the command instead", elem_classes="narrow")
    notice = build_notice()
    shown = build_html("")
    shell.on(button.click, submit_generating, RESEARCHER, inputs, [shown], notice)
    shell.on(command.click, show_command, RESEARCHER, inputs, [shown], notice)


def submit_generating(
    visit: Visit, name: str, prompts: str, seeds: str, model: str, steps: float, guidance: float
) -> Said:
    """Hand a generate job over to the queue."""
    request = _generate_request(visit, name, prompts, seeds, model, steps, guidance)
    submission = visit.queue.submit(request, user=visit.user.name)
    sentence = "Handed over." if submission.is_new else "The same job is in the queue already."
    n_pictures = len(request.prompts) * len(request.seeds)
    return Said([job_html(submission.job)], f"{sentence} It makes {n_pictures} pictures and puts them up for judging.")


def show_command(visit: Visit, name: str, prompts: str, seeds: str, model: str, steps: float, guidance: float) -> str:
    """The command that does the same, for another machine with the same store."""
    request = _generate_request(visit, name, prompts, seeds, model, steps, guidance)
    words = ["hfi", "generate", "--store", str(visit.store.path), "--project", name, "--model", request.config.model]
    words += ["--num-inference-steps", str(request.config.num_inference_steps)]
    words += ["--guidance-scale", str(request.config.guidance_scale), "--seeds", seeds]
    words += [word for prompt in request.prompts for word in ("--prompt", prompt)]
    return fill("command.html", command=shlex.join(words))


def _generate_request(
    visit: Visit, name: str, prompts: str, seeds: str, model: str, steps: float, guidance: float
) -> GenerateRequest:
    from ui.pages.setup import split_lines

    visit.store.get_project(name)
    lines, numbers = split_lines(prompts), parse_seeds(seeds)
    if not lines:
        raise InvalidInputError("There is no prompt. Write at least one, one a line.")
    if len(lines) * len(numbers) > MAX_PICTURES_OF_A_JOB:
        raise InvalidInputError(
            f"{len(lines)} prompts with {len(numbers)} seeds each are more than {MAX_PICTURES_OF_A_JOB:,} pictures. "
            "Hand them over in several jobs."
        )
    config = {"model": model or "mini", "num_inference_steps": steps, "guidance_scale": guidance}
    content = {"kind": "generate", "project": name, "config": config, "prompts": lines, "seeds": numbers}
    request = parse_request(content)
    assert isinstance(request, GenerateRequest)
    return request


# --- importing ---------------------------------------------------------------------------------------------------


def import_folders(visit: Visit) -> tuple[Path, ...]:
    """The folders of the server that whoever started it allows to import from."""
    return tuple(Path(folder).resolve() for folder in getattr(visit.context.settings, "import_folders", ()))


def _build_import(shell: Shell, project: gr.Dropdown) -> None:
    folders = [str(folder) for folder in getattr(shell.context.settings, "import_folders", ())]
    build_html(fill("import_folders.html", folders=folders))
    if not folders:
        return
    path = gr.Textbox(label="Folder of pictures, export folder or parquet file", info="Its path on the server.")
    columns = gr.Textbox(
        label="Columns of a parquet file", info="For instance image=img, prompt=text. Empty for Pick-a-Pic's.", lines=1
    )
    skips_bad = gr.Checkbox(label="Import the good rows although some are bad")
    button = gr.Button("Hand over to the queue", variant="primary", elem_classes="narrow")
    notice = build_notice()
    shown = build_html("")
    shell.on(button.click, submit_import, RESEARCHER, [project, path, columns, skips_bad], [shown], notice)


def submit_import(visit: Visit, name: str, path: str, columns: str, skips_bad: bool) -> Said:
    """Hand an import of a path on the server over to the queue."""
    project, place = visit.store.get_project(name), Path(path or ".").resolve()
    if not path or not any(place.is_relative_to(folder) for folder in import_folders(visit)):
        raise InvalidInputError(f"{path!r} is not in a folder that may be imported from. Name a path in one.")
    if not place.exists():
        raise InvalidInputError(f"There is no file or folder {path!r} on the server. Check the path.")
    request = ImportRequest(
        project=name,
        path=str(place),
        project_kind=project.kind,
        columns=_parse_columns(columns),
        skip_bad=bool(skips_bad),
    )
    submission = visit.queue.submit(request, user=visit.user.name)
    return Said([job_html(submission.job)], "Handed over." if submission.is_new else "It is in the queue already.")


def _parse_columns(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in (text or "").split(",") if part.strip()]
    if any(not sign or not name.strip() or not column.strip() for name, sign, column in pairs):
        raise InvalidInputError(f"The columns {text!r} are not pairs. Write for instance image=img, prompt=text.")
    return {name.strip(): column.strip() for name, _, column in pairs}
