"""What an erasure looks like, on the way and at its end: before and after with a slider, and every look."""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from hfi.evaluate.charts import line_chart
from hfi.jobs.erase_samples import SamplePoint, SampleSheet, picture_path, read_samples, samples_folder
from hfi.jobs.queue import Job
from storage import Store
from storage.errors import InvalidInputError, NotFoundError
from ui.pages.frame import RESEARCHER, Shell, Visit, build_html, build_notice, fill
from ui.pages.jobs_frame import build_uncovers

MAX_LOOKS_SHOWN = 8
SLIDER_PX = 384


def build_looks(shell: Shell, project: gr.Dropdown) -> tuple[gr.Textbox, gr.HTML, gr.Dropdown]:
    """The samples: before and after with a slider, and all looks on the way."""
    earlier = gr.Dropdown([], label="Changed models of this project", info="Look at an earlier one.", visible=False)
    look = gr.Textbox(visible="hidden", elem_classes="look")
    notice = build_notice()
    with gr.Column(visible=False, elem_classes="panel looks") as panel:
        build_html(fill("panel_title.html", title="Before and after", text="The same words and the same seed."))
        uncovers = build_uncovers()
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=260):
                slider = gr.ImageSlider(
                    label="Left: original. Right: changed.", type="pil", interactive=False, elem_classes="before-after",
                    max_height=SLIDER_PX, buttons=[],
                )  # fmt: skip
            with gr.Column(scale=3, min_width=260):
                number = gr.Radio([], label="Prompt", elem_classes="column-choice")
    board = build_html("", "board-place")
    outputs = [panel, slider, number, uncovers]
    shell.on(look.change, show_slider, RESEARCHER, [project, look], outputs)
    shell.on(number.input, move_slider, RESEARCHER, [look, number], [slider])
    shell.on(earlier.input, open_earlier, RESEARCHER, [project, earlier], [look, board], notice)
    return look, board, earlier


def show_looks(visit: Visit, job: Job | None) -> tuple[Any, Any]:
    """The looks at a job's model so far, and their name, which moves the slider when there is a new one."""
    if job is None:
        return gr.skip(), gr.skip()
    sheet = _sheet_of(visit.store, job.run_id)
    if sheet is None:
        return "", ""
    return f"{job.run_id}:{len(sheet.points)}", looks_html(visit, job.project, job.run_id, sheet)


def open_earlier(visit: Visit, name: str, run_id: str) -> tuple[str, str]:
    """The looks at a model that was made before.

    Raises:
        NotFoundError: nobody asked for samples when it was made.
    """
    sheet = _sheet_of(visit.store, run_id)
    if sheet is None or visit.store.get_run(run_id).config.get("project") != name:
        raise NotFoundError(
            "This model was made without samples. Erase with the same settings: that draws them and trains nothing."
        )
    return f"{run_id}:{len(sheet.points)}", looks_html(visit, name, run_id, sheet)


def _sheet_of(store: Store, run_id: str) -> SampleSheet | None:
    if not run_id or store.get_run(run_id).kind != "erase":
        return None
    sheet = read_samples(samples_folder(store, run_id))
    return sheet if sheet is not None and sheet.points else None


def looks_html(visit: Visit, name: str, run_id: str, sheet: SampleSheet) -> str:
    """The samples of the looks: a row a prompt, a column a look; and the concept score over the steps."""
    scores = [(point.step, sheet.mean_score(point)) for point in sheet.points]
    known = [(step, score) for step, score in scores if score is not None]
    chart = line_chart([step for step, _ in known], [score for _, score in known]) if len(known) > 1 else ""
    project = visit.store.get_project(name)
    shown = spread_looks(sheet.points)
    return fill(
        "erase_looks.html", project=name, run_id=run_id, sheet=sheet, points=shown, chart=chart, known=known,
        is_covered=project.is_sensitive, is_whole=len(shown) == len(sheet.points),
    )  # fmt: skip


def spread_looks(points: tuple[SamplePoint, ...]) -> list[SamplePoint]:
    """At most so many looks, the first and the last among them."""
    if len(points) <= MAX_LOOKS_SHOWN:
        return list(points)
    last = MAX_LOOKS_SHOWN - 1
    return [points[round(i * (len(points) - 1) / last)] for i in range(MAX_LOOKS_SHOWN)]


def show_slider(visit: Visit, name: str, look: str) -> tuple[Any, ...]:
    """Before and after of the first prompt, and the prompts to choose from."""
    run_id = look.partition(":")[0]
    sheet = _sheet_of(visit.store, run_id)
    if sheet is None or len(sheet.points) < 2:
        return gr.update(visible=False), gr.skip(), gr.skip(), gr.skip()
    is_covered = visit.store.get_project(name).is_sensitive
    choices = [(f"{row.prompt}, seed {row.seed}", number) for number, row in enumerate(sheet.prompts)]
    classes = ["before-after", *(["covered"] if is_covered else [])]
    return (
        gr.update(visible=True),
        gr.update(value=_before_after(visit.store, run_id, sheet, 0), elem_classes=classes),
        gr.update(choices=choices, value=0),
        gr.update(visible=is_covered),
    )


def move_slider(visit: Visit, look: str, number: float | None) -> Any:
    """Before and after of another prompt."""
    run_id = look.partition(":")[0]
    sheet = _sheet_of(visit.store, run_id)
    if sheet is None:
        return gr.skip()
    place = int(number or 0)
    if not 0 <= place < len(sheet.prompts):
        raise InvalidInputError("There is no such sample. Choose one of the prompts.")
    return gr.update(value=_before_after(visit.store, run_id, sheet, place))


def _before_after(store: Store, run_id: str, sheet: SampleSheet, number: int) -> tuple[Image.Image, Image.Image]:
    folder = samples_folder(store, run_id)
    first, last = (_load(picture_path(folder, sheet.points[end].step, number)) for end in (0, -1))
    return first, last


def _load(path: Any) -> Image.Image:
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    # The slider does not enlarge: a picture of 64 px would be a stamp.
    factor = max(1, SLIDER_PX // max(small.size))
    return small.resize((small.width * factor, small.height * factor), Image.Resampling.LANCZOS)
