"""Generate pictures into a project and put them up for judging."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hfi.config import GenerateConfig
from hfi.errors import ConfigError, EmptyPromptListError
from hfi.jobs import sharing
from hfi.jobs.invert import TOKENS_ARTIFACT, load_tokens
from hfi.jobs.pictures import PictureMaker
from hfi.jobs.runs import StageResult, find_finished, recorded_run, run_settings
from hfi.progress import QUIET, Progress
from storage import Store
from storage.errors import ConflictError, NotFoundError
from storage.records import GenerationRecord, ItemInput, Kind

if TYPE_CHECKING:
    from hfi.guidance import Guard
    from hfi.inversion import ConceptToken

FEEDBACK_ROLE = "feedback"
TIMES_COMPARED = 3  # items that each picture of a pair or ranking project stands in
DEFAULT_GUIDELINE = (
    "Does this picture show what should not be drawn? Answer yes or no; if you can't tell, answer unsure."
)


def ensure_project(
    store: Store, project: str, guideline: str = DEFAULT_GUIDELINE, *, kind: Kind = "flag", is_demo: bool = False
) -> None:
    """Make a project of that name, a flag project by default, unless there is one."""
    try:
        store.get_project(project)
    except NotFoundError:
        with suppress(ConflictError):  # another process made it in this moment
            store.create_project(project, kind=kind, guideline=guideline, is_demo=is_demo)


def run_generate(
    store: Store,
    config: GenerateConfig,
    prompts: Sequence[str],
    seeds: Sequence[int],
    project: str,
    progress: Progress = QUIET,
) -> StageResult:
    """Every prompt with every seed, stored with provenance and queued for judging.

    Args:
        store: where pictures go.
        config: model and sampler.
        prompts: texts; at least one.
        seeds: one picture of every prompt for each.
        project: made as a flag project if it does not exist.
        progress: told about every batch; default: nobody.

    Raises:
        EmptyPromptListError: no prompt or no seed.
        ModelFolderError: the model is missing or lacks a part.
    """
    return generate_pairs(store, config, [(prompt, seed) for prompt in prompts for seed in seeds], project, progress)


def generate_pairs(
    store: Store, config: GenerateConfig, pairs: Sequence[tuple[str, int]], project: str, progress: Progress = QUIET
) -> StageResult:
    """As `run_generate`, for given (prompt, seed) pairs."""
    from hfi.generate import GenerationRequest

    if not pairs:
        raise EmptyPromptListError("There is nothing to generate: give at least one prompt and one seed.")
    guard = load_guard(store, config, project)
    maker = PictureMaker(store, project, config.model, config.device)
    ensure_project(store, project)
    inputs: dict[str, Any] = {"guard": guard.provenance()} if guard else {}
    settings = run_settings(
        config, project, pairs=[list(pair) for pair in pairs], model_sha256=maker.model_sha256, **inputs
    )
    done = find_finished(store, "generate", settings)
    if done is not None:
        return StageResult(_summary(done.metrics["images"], project), done, dict(done.metrics))
    requests = [GenerationRequest(prompt, seed) for prompt, seed in pairs]
    if not sharing.is_first_process():
        maker.make_together(requests, config, FEEDBACK_ROLE, progress, "generate", guard)
        run = sharing.wait_for(lambda: find_finished(store, "generate", settings))
        return StageResult(_summary(run.metrics["images"], project), run, dict(run.metrics))
    with recorded_run(store, "generate", settings) as work:
        records = maker.make_together(requests, config, FEEDBACK_ROLE, progress, "generate", guard)
        store.add_items(project, make_items(store, project, records))
        work.metrics.update(images=len(records), model_sha256=maker.model_sha256)
    return StageResult(_summary(len(records), project), work.run, dict(work.metrics))


def make_items(store: Store, project: str, records: Sequence[GenerationRecord]) -> list[ItemInput]:
    """What is asked about new pictures: each by itself, or in pairs and rankings each beside others, three times.

    Pictures are shuffled anew each time, the same way whenever they are the same; those that don't fill an item are
    joined by pictures of items before. The same that meet again are asked about once.

    Raises:
        ConfigError: there are fewer pictures than an item of the project has.
    """
    kind = store.get_project(project).kind
    prompts = {record.image_sha256: record.params.prompt for record in records}
    if kind in ("flag", "score"):
        return [ItemInput((record.image_sha256,), record.params.prompt) for record in records]
    size = 2 if kind == "pair" else store.get_care(project).rank_size
    pictures = sorted(prompts)
    if len(pictures) < size:
        raise ConfigError(
            f"An item of the {kind} project {project!r} has {size} pictures, but only {len(pictures)} different ones "
            f"were generated: give more prompts or seeds."
        )
    items = []
    for times in range(TIMES_COMPARED):
        order = np.random.default_rng((times, len(pictures))).permutation(len(pictures))
        for first in range(0, len(pictures), size):
            place = min(first, len(pictures) - size)
            images = tuple(pictures[row] for row in order[place : place + size])
            shared = {prompts[image] for image in images}
            items.append(ItemInput(images, shared.pop() if len(shared) == 1 else ""))
    return items


def load_guard(store: Store, config: GenerateConfig, project: str) -> Guard | None:
    """The guard that a configuration asks for, with its concept tokens; None if it asks for none.

    Raises:
        ConfigError: there is nothing to hold back.
        NotFoundError: there are no such tokens.
    """
    if config.guard == "none":
        return None
    from hfi.guidance import build_guard

    return build_guard(config, _guard_tokens(store, config.guard_tokens, project) if config.guard_tokens else [])


def _guard_tokens(store: Store, name: str, project: str) -> list[ConceptToken]:
    """Tokens of a folder or file, of an inversion's run, or of the newest inversion of the project (`latest`)."""
    from hfi.inversion import load_concept_tokens

    if name == "latest":
        return load_tokens(store, project)[1]
    if Path(name).exists():
        return load_concept_tokens(name)
    try:
        run = store.get_run(name)
    except NotFoundError as error:
        raise NotFoundError(
            f"--guard-tokens is {name!r}, but that is no folder, no file and no run: write 'latest' for the newest."
        ) from error
    return load_concept_tokens(store.artifact_dir(run.id) / TOKENS_ARTIFACT)


def _summary(num_images: int, project: str) -> str:
    return f"{num_images} pictures are in project {project!r}, ready to be judged."
