"""Erase: take a concept out of a model; an instant preview first, then the real run, watched while it goes on."""

from __future__ import annotations

from typing import Any

import gradio as gr

from hfi.job_requests import EraseRequest
from hfi.jobs.erase_samples import MAX_SAMPLE_PROMPTS
from hfi.jobs.runs import latest_run
from hfi.jobs.side_by_side import describe_erasure, list_erasures
from storage.errors import InvalidInputError
from ui.pages.erase_looks import build_looks, show_looks
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
from ui.pages.jobs_frame import JobForm, JobWatch

# (what it is called, its name, what it does), the recommended one first.
METHODS = (
    ("Self-distillation (SDD)", "sdd", "Learns to draw the flagged prompts without the concept. The usual choice."),
    ("ESD", "esd", "Pushes the prediction away from the concept. Strong, and harder on everything else."),
    ("All but one", "abo", "As self-distillation, and holds the prediction without a prompt in place."),
    ("Closed form", "closed_form", "Solves for the text weights in seconds, without training. Good for a first look."),
    ("Rounds against return", "robust", "Erases, looks for what still evokes it, erases that too. Takes longer."),
)  # fmt: skip
TARGETS = (
    ("Tokens and flagged prompts", "both"),
    ("Concept tokens", "tokens"),
    ("Flagged prompts", "prompts"),
    ("Words", "text"),
)
ANCHORS = (
    ("Nothing (the empty prompt)", "empty"),
    ("The rest of its prompt", "rest"),
    ("Another word from prompts to keep", "swap"),
    ("Another concept", "concept"),
)
WEIGHTS = (
    ("Cross-attention: what words do", "cross_attention"),
    ("Its keys and values only", "cross_attention_kv"),
    ("Self-attention", "self_attention"),
    ("All but cross-attention", "non_cross_attention"),
    ("Everything", "full"),
)
OPTIONS_OF_METHOD: dict[str, tuple[tuple[str, str], ...]] = {
    "sdd": (("sdd_prompts", "Which prompts are joined"), ("sdd_target", "Whose prediction is the target")),
    "esd": (("esd_variant", "Variant"), ("esd_erase_from", "Erase from this concept only")),
    "abo": (("abo_null_weight", "Weight of the empty prompt"),),
    "closed_form": (
        ("closed_form_rounds", "Rounds"),
        ("closed_form_regularization", "Pull to the weights before"),
        ("closed_form_states", "States of a word that are edited"),
    ),
    "robust": (
        ("robust_method", "Method of each round"),
        ("robust_rounds", "Rounds"),
        ("robust_invert_steps", "Steps of each search"),
    ),
}
TRAINED = (
    ("learning_rate", "Learning rate"), ("batch_size", "Pictures at once"), ("negative_guidance", "Push away (eta)"),
    ("timesteps", "Timesteps"), ("latents", "Where training points come from"), ("ema_decay", "Decay of the average"),
    ("max_gradient_norm", "Gradient clipping"), ("checkpoint_every_n_steps", "Steps between checkpoints"),
)  # fmt: skip


def build_erase(shell: Shell) -> None:
    """The page for those who take a concept out of a model."""
    build_header(shell, "erase")
    with gr.Column(elem_id="main"):
        build_title("Erase", "Take what people flagged out of a copy of the model. The original is never changed.")
        project = build_project_choice()
        ready = build_html("")
        form = JobForm(shell, EraseRequest, project)
        _build_first_fields(shell, form)
        groups = _build_more_fields(form)
        with gr.Row(elem_classes="actions-row"):
            preview = gr.Button("Instant preview", elem_classes="narrow")
            start = gr.Button("Erase", variant="primary", elem_classes="narrow")
        form.build_notice()
        watch = JobWatch(shell, ("erase",), project)
        look, board, slider_parts = build_looks(shell, project)
        watch.follow(show_looks, [look, board])
        form.connect(start, watch, read_erase)
        form.connect(preview, watch, read_preview)
        watch.connect()
    method: Any = form.places["config.method"]
    shell.on(method.input, show_method, RESEARCHER, [method], [method, *groups])
    shell.on(project.change, show_ready, RESEARCHER, [project], [ready, slider_parts])
    on_load(shell, open_erase, RESEARCHER, [project])


def _build_first_fields(shell: Shell, form: JobForm) -> None:
    """The few that matter first."""
    with gr.Row(equal_height=False):
        methods = [(label, name) for label, name, _ in METHODS]
        form.add("config.method", "Method", info=METHODS[0][2], choices=methods, min_width=260)
        targets = form.add(
            "config.targets", "What is erased", info="Learned from people's flags.", choices=list(TARGETS),
            min_width=260,
        )  # fmt: skip
        anchor = form.add(
            "config.anchor", "What takes its place", info="What the model draws instead.", choices=list(ANCHORS),
            min_width=260,
        )  # fmt: skip
    text = form.add(
        "config.text", "The concept in words", info="Several on lines of their own.", lines=2, visible=False
    )
    concept = form.add(
        "config.anchor_concept", "The concept that takes its place", info="In words.", visible=False
    )  # fmt: skip
    with gr.Row(equal_height=False):
        form.add(
            "config.num_train_steps", "Steps", info="More erases more surely. Closed form has none.", min_width=160
        )
        form.add(
            "sample_every_n_steps", "Draw samples every", value=50, info="Steps; 0: before and after.", min_width=160
        )
        form.add("config.seed", "Seed", info="The same seed gives the same model.", min_width=160)
        form.add("config.model", "Model", info="mini, a folder on the server, or owner/name.", min_width=220)
    shell.on(targets.input, show_text, RESEARCHER, [targets], [text])
    shell.on(anchor.input, show_anchor, RESEARCHER, [anchor], [concept])


def _build_more_fields(form: JobForm) -> list[Any]:
    """Everything else, in groups that are closed; gives the group of each method."""
    with gr.Accordion("What must not change", open=False):
        form.add(
            "config.retain_text", "Prompts that must not change", lines=3,
            info="One a line. Empty: those of the pictures that nobody flagged.",
        )  # fmt: skip
        form.add("config.retain_weight", "How much that counts", info="0 = not at all, 1 = as much as erasing.")
        form.add(
            "config.unjudged", "Pictures that nobody judged",
            info="by_score: erased or kept too, where the score model and the prompt agree.",
        )  # fmt: skip
    groups = []
    with gr.Accordion("Options of the method", open=False):
        for method, options in OPTIONS_OF_METHOD.items():
            with gr.Row(visible=method == METHODS[0][1], equal_height=False) as group:
                for name, label in options:
                    form.add(f"config.{name}", label, min_width=220)
            groups.append(group)
    with gr.Accordion("Weights and training", open=False):
        form.add("config.trainable", "Weights that may change", info="Fewer change less else.", choices=list(WEIGHTS))
        with gr.Row(equal_height=False):
            for name, label in TRAINED:
                form.add(f"config.{name}", label, min_width=220)
    with gr.Accordion("Samples, weak tokens, device", open=False):
        form.add(
            "sample_prompts", "", lambda: gr.Textbox(
                label="Prompts that are drawn as samples", lines=3,
                info=f"One a line, {MAX_SAMPLE_PROMPTS} at most. Empty: some flagged and some unflagged ones.",
            ),
        )  # fmt: skip
        form.add("config.allow_weak_tokens", "Take weak tokens too")
        form.add("config.device", "Device", info="auto takes a GPU when there is one.")
        form.add("config.precision", "Arithmetic", info="bfloat16 is for GPUs that have it.")
    return groups


# --- the form ----------------------------------------------------------------------------------------------------


def open_erase(visit: Visit) -> Any:
    """The project choices; what the address names is chosen."""
    names, chosen = project_choices(visit)
    return gr.update(choices=names, value=chosen or None)


def show_ready(visit: Visit, name: str) -> tuple[str, Any]:
    """What there is to erase with, and what was erased before."""
    if not name:
        return fill("nothing.html", sentence="There is no project yet. Set one up first."), gr.update(visible=False)
    visit.store.get_project(name)
    score, invert = (latest_run(visit.store, kind, name) for kind in ("score", "invert"))
    earlier = [(describe_erasure(run), run.id) for run in list_erasures(visit.store, name)]
    choice = gr.update(choices=earlier, value=None, visible=bool(earlier))
    return fill("erase_ready.html", project=name, score=score, invert=invert), choice


def show_method(visit: Visit, method: str) -> tuple[Any, ...]:
    """What the chosen method does, and its options alone."""
    text = next((text for _, name, text in METHODS if name == method), "")
    return gr.update(info=text), *(gr.update(visible=name == method) for name in OPTIONS_OF_METHOD)


def show_text(visit: Visit, targets: str) -> Any:
    """The words are asked for where words are erased."""
    return gr.update(visible=targets == "text")


def show_anchor(visit: Visit, anchor: str) -> Any:
    """Another concept is asked for where one takes the place."""
    return gr.update(visible=anchor == "concept")


def read_erase(visit: Visit, fields: Fields) -> None:
    """Lines as the configuration takes them; options of other methods are left out."""
    values = fields.values
    for method, options in OPTIONS_OF_METHOD.items():
        for name, _ in options:
            if method != values["config.method"]:
                values.pop(f"config.{name}")
    for place, choice, wanted in (
        ("config.text", "config.targets", "text"),
        ("config.anchor_concept", "config.anchor", "concept"),
    ):
        values[place] = join_lines(values[place]) if values[choice] == wanted else ""
        with fields.at(place):
            if values[choice] == wanted and not values[place]:
                raise InvalidInputError("Nothing is given here. Say it in words.")
    values["config.retain_text"] = join_lines(values["config.retain_text"])
    prompts = [line.strip() for line in (values["sample_prompts"] or "").splitlines() if line.strip()]
    with fields.at("sample_prompts"):
        if len(prompts) > MAX_SAMPLE_PROMPTS:
            raise InvalidInputError(f"{len(prompts)} prompts are too many. Give {MAX_SAMPLE_PROMPTS} at most.")
    with fields.at("config.model"):
        check_model(values["config.model"] or "")
    values |= {"sample_prompts": prompts, "with_samples": True}


def read_preview(visit: Visit, fields: Fields) -> None:
    """The same targets by the closed form: seconds, for a first look."""
    values = fields.values
    if values["config.method"] != "closed_form":
        for name, _ in OPTIONS_OF_METHOD["closed_form"]:
            values[f"config.{name}"] = EraseRequest().config.model_dump()[name]
    for place in list(values):
        if place.removeprefix("config.") in {name for name, _ in TRAINED} | {"num_train_steps", "trainable"}:
            values[place] = EraseRequest().config.model_dump()[place.removeprefix("config.")]
    values |= {"config.method": "closed_form", "sample_every_n_steps": 0}
    read_erase(visit, fields)


def join_lines(text: str | None) -> str:
    """Lines as the command line takes several: with semicolons between them."""
    return "; ".join(line.strip().strip(";").strip() for line in (text or "").splitlines() if line.strip())
