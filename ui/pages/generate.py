"""Generate: prompts by hand, from a file or a ready set, drawn with every seed; pictures appear as they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from hfi.cli_inputs import MAX_PROMPT_CHARACTERS, parse_seeds, read_prompts
from hfi.config import SCHEDULERS
from hfi.job_requests import GenerateRequest, parse_request
from hfi.jobs.queue import Job
from hfi.mini.suite import concept_prompts, other_prompts, other_style_prompts, style_prompts
from hfi.mini.vocabulary import GROUPS
from hfi.mini.world import WORLDS, embedded_world
from storage.errors import HFIError, InvalidInputError
from storage.gallery import MAX_PAGE_SIZE
from ui.pages.frame import (
    RESEARCHER,
    Shell,
    Visit,
    build_header,
    build_html,
    build_project_choice,
    build_title,
    fill,
    on_load,
    project_choices,
)
from ui.pages.job_fields import Fields, check_model
from ui.pages.jobs_frame import JobForm, JobWatch, build_uncovers

MAX_PICTURES_OF_A_JOB = 100_000
MAX_SEEDS_CHARACTERS = 2000
N_SHOWN = 60
N_READY = 24
NO_SET = "none"
READY_STYLES = WORLDS["cpu"].styles  # every embedded model knows them
# Name of a ready set -> (what it is drawn from, the group or style it is about)
READY_SETS = {
    **{f"embedded model: {group}s": (concept_prompts, group) for group in GROUPS},
    **{
        f"embedded model: anything but {group}s": (other_prompts, group) for group in ("weapon", "substance", "macabre")
    },
    **{f"embedded model: {style} style": (style_prompts, style) for style in READY_STYLES},
    **{f"embedded model: anything but {style} style": (other_style_prompts, style) for style in READY_STYLES},
}


def build_generate(shell: Shell) -> None:
    """The page for those who make pictures to be judged."""
    build_header(shell, "generate")
    with gr.Column(elem_id="main"):
        build_title("Generate", "Pictures of every prompt with every seed, put up for judging as they are made.")
        project = build_project_choice()
        form = JobForm(shell, GenerateRequest, project)
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=300):
                _build_prompts(shell, form)
            with gr.Column(scale=2, min_width=300):
                _build_sampler(form)
        start = gr.Button("Generate", variant="primary", elem_classes="narrow")
        form.build_notice()
        watch = JobWatch(shell, ("generate",), project)
        uncovers = build_uncovers()
        board = build_html("", "board-place")
        watch.follow(show_made, [uncovers, board])
        form.connect(start, watch, read_generate)
        watch.connect()
    on_load(shell, open_generate, RESEARCHER, [project])


def _build_prompts(shell: Shell, form: JobForm) -> None:
    form.add(
        "prompts", "", lambda: gr.Textbox(label="Prompts", info="One a line; each is drawn with every seed.", lines=13)
    )
    with gr.Row(equal_height=False):
        ready = gr.Dropdown(
            [NO_SET, *READY_SETS], value=NO_SET, label="Put in a ready set", info=f"{N_READY} prompts, to be changed."
        )
        form.add(
            "file",
            "",
            lambda: gr.File(label="Or a text file, one a line", file_types=[".txt"], height=140),
            min_width=220,
        )
    shell.on(ready.input, put_in_ready_set, RESEARCHER, [ready], [form.places["prompts"]])


def _build_sampler(form: JobForm) -> None:
    form.add("seeds", "", lambda: gr.Textbox("0-3", label="Seeds", info="For instance 0-9 or 3,5,8."))
    form.add("config.model", "Model")
    with gr.Row(equal_height=False):
        form.add("config.sampler", "Sampler", info="How steps are made.", min_width=120)
        form.add("config.num_inference_steps", "Steps", info="Of each picture.", min_width=120)
        form.add("config.guidance_scale", "Guidance", info="1 means none.", min_width=120)
    form.add("config.negative_prompt", "Negative prompt")
    with gr.Accordion("Hold something back while drawing", open=False):
        form.add("config.guard", "Guard", info="As a negative prompt, or by Safe Latent Diffusion; weights stay.")
        form.add("config.guard_text", "What is held back, in words", info="May name concept tokens.")
        form.add("config.guard_tokens", "Concept tokens held back", info="latest, or the id of an inversion's run.")
        form.add("config.sld_level", "Strength of Safe Latent Diffusion", info="The published settings.")
    with gr.Accordion("Size and device", open=False):
        with gr.Row(equal_height=False):
            form.add("config.width_px", "Width in pixels", info="Empty: the model's own.", min_width=120)
            form.add("config.height_px", "Height in pixels", info="Empty: the model's own.", min_width=120)
        with gr.Row(equal_height=False):
            form.add("config.batch_size", "Pictures at once", info="Does not change them.", min_width=120)
            form.add("config.device", "Device", info="auto takes a GPU.", min_width=120)


def open_generate(visit: Visit) -> Any:
    """The project choices; what the address names is chosen."""
    names, chosen = project_choices(visit)
    return gr.update(choices=names, value=chosen or None)


def put_in_ready_set(visit: Visit, name: str) -> Any:
    """The prompts of a ready set, to be changed by hand."""
    if name not in READY_SETS:
        return gr.skip()
    make, concept = READY_SETS[name]
    made = make(embedded_world(), concept, N_READY, first_seed=0, held_out=False)
    return "\n".join(dict.fromkeys(scene.prompt for scene in made))


def read_generate(visit: Visit, fields: Fields) -> None:
    """Prompts from the lines and the file, seeds from their ranges."""
    values = fields.values
    file, typed = values.pop("file"), values["prompts"] or ""
    with fields.at("prompts"):
        values["prompts"] = split_prompts(typed)
    if file:
        with fields.at("file"):
            values["prompts"] = list(dict.fromkeys([*values["prompts"], *_read_file(Path(file))]))
    with fields.at("seeds"):
        values["seeds"] = _read_seeds(values["seeds"] or "")
    with fields.at("config.model"):
        check_model(values["config.model"] or "")
    with fields.at("config.guard_text"):
        _check_guard(values)
    n_pictures = len(values["prompts"]) * len(values["seeds"])
    if not fields.problems and n_pictures > MAX_PICTURES_OF_A_JOB:
        fields.problems["seeds"] = (
            f"{n_pictures:,} pictures are too many for one job. Take fewer prompts or seeds: {MAX_PICTURES_OF_A_JOB:,} "
            "at most."
        )


def split_prompts(text: str) -> list[str]:
    """One prompt a line, each once.

    Raises:
        InvalidInputError: a line is too long.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_PROMPT_CHARACTERS:
            raise InvalidInputError(
                f"Prompt {number} has {len(line):,} characters. Shorten it to {MAX_PROMPT_CHARACTERS:,} at most."
            )
    return list(dict.fromkeys(lines))


def _read_file(path: Path) -> list[str]:
    try:
        return read_prompts(path, [])
    except HFIError as error:
        raise InvalidInputError(str(error).replace(str(path), path.name)) from None


def _read_seeds(text: str) -> list[int]:
    if len(text) > MAX_SEEDS_CHARACTERS:
        raise InvalidInputError(f"This is too long. Write ranges, such as 0-99: {MAX_SEEDS_CHARACTERS:,} characters.")
    try:
        return parse_seeds(text)
    except InvalidInputError:
        raise InvalidInputError(
            f"{text[:60]!r} are no seeds. Write whole numbers and ranges that go upwards, such as 0-9 or 3,5,8."
        ) from None


def _check_guard(values: dict[str, Any]) -> None:
    has_words = bool((values["config.guard_text"] or values["config.guard_tokens"] or "").strip())
    if values["config.guard"] != "none" and not has_words:
        raise InvalidInputError("There is nothing to hold back. Say it in words here, or name concept tokens below.")
    if values["config.guard"] == "none" and has_words:
        raise InvalidInputError(
            "Nothing is held back while the guard is none. Choose negative or sld, or leave it empty."
        )


# --- what was made -----------------------------------------------------------------------------------------------


def show_made(visit: Visit, job: Job | None) -> tuple[Any, str]:
    """The switch that uncovers, and the grid: all places of a small job, the newest pictures of a large one."""
    if job is None:
        return gr.update(visible=False), ""
    request = parse_request(job.request or {})
    assert isinstance(request, GenerateRequest)
    pictures = visit.store.list_generated(
        job.project,
        request.prompts,
        request.seeds,
        model_id=request.config.model,
        scheduler=SCHEDULERS[request.config.sampler],
        num_inference_steps=request.config.num_inference_steps,
        guidance_scale=request.config.guidance_scale,
        guard=request.config.guard if request.config.guard != "none" else "",
        n=MAX_PAGE_SIZE,
    )
    wanted = len(request.prompts) * len(request.seeds)
    if wanted <= N_SHOWN:
        made = {(picture.prompt, picture.seed): picture for picture in pictures}
        places = [(prompt, seed) for prompt in request.prompts for seed in request.seeds]
        cells = [{"prompt": prompt, "seed": seed, "picture": made.get((prompt, seed))} for prompt, seed in places]
    else:
        cells = [{"prompt": shown.prompt, "seed": shown.seed, "picture": shown} for shown in pictures[:N_SHOWN]]
    is_sensitive = visit.store.get_project(job.project).is_sensitive if pictures else False
    board = fill("generated.html", job=job, cells=cells, n_wanted=wanted, n_shown=N_SHOWN, is_covered=is_sensitive)
    return gr.update(visible=is_sensitive), board
