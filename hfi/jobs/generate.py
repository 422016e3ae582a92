"""Generate pictures into a project and put them up for judging."""

from __future__ import annotations

from collections.abc import Sequence

from hfi.config import GenerateConfig
from hfi.errors import EmptyPromptListError
from hfi.jobs.pictures import PictureMaker
from hfi.jobs.runs import StageResult, find_finished, recorded_run, run_settings
from hfi.progress import Progress
from storage import Store
from storage.errors import NotFoundError
from storage.records import ItemInput

FEEDBACK_ROLE = "feedback"
DEFAULT_GUIDELINE = (
    "Does this picture show what should not be drawn? Answer yes or no; if you can't tell, answer unsure."
)


def ensure_project(store: Store, project: str, guideline: str = DEFAULT_GUIDELINE, *, is_demo: bool = False) -> None:
    """Make a flag project of that name unless there is one."""
    try:
        store.get_project(project)
    except NotFoundError:
        store.create_project(project, kind="flag", guideline=guideline, is_demo=is_demo)


def run_generate(
    store: Store, config: GenerateConfig, prompts: Sequence[str], seeds: Sequence[int], project: str, progress: Progress
) -> StageResult:
    """Every prompt with every seed, stored with provenance and queued for judging.

    Args:
        store: where pictures go.
        config: model and sampler.
        prompts: texts; at least one.
        seeds: one picture of every prompt for each.
        project: made as a flag project if it does not exist.
        progress: told about every batch.

    Raises:
        EmptyPromptListError: no prompt or no seed.
        ModelFolderError: the model is missing or lacks a part.
    """
    return generate_pairs(store, config, [(prompt, seed) for prompt in prompts for seed in seeds], project, progress)


def generate_pairs(
    store: Store, config: GenerateConfig, pairs: Sequence[tuple[str, int]], project: str, progress: Progress
) -> StageResult:
    """As `run_generate`, for given (prompt, seed) pairs."""
    from hfi.generate import GenerationRequest

    if not pairs:
        raise EmptyPromptListError("There is nothing to generate: give at least one prompt and one seed.")
    maker = PictureMaker(store, project, config.model, config.device)
    ensure_project(store, project)
    settings = run_settings(config, project, pairs=[list(pair) for pair in pairs], model_sha256=maker.model_sha256)
    done = find_finished(store, "generate", settings)
    if done is not None:
        return StageResult(_summary(done.metrics["images"], project), done, dict(done.metrics))
    with recorded_run(store, "generate", settings) as work:
        requests = [GenerationRequest(prompt, seed) for prompt, seed in pairs]
        records = maker.make(requests, config, FEEDBACK_ROLE, progress, "generate")
        if store.get_project(project).kind in ("flag", "score"):
            store.add_items(project, [ItemInput((record.image_sha256,), record.params.prompt) for record in records])
        work.metrics.update(images=len(records), model_sha256=maker.model_sha256)
    return StageResult(_summary(len(records), project), work.run, dict(work.metrics))


def _summary(num_images: int, project: str) -> str:
    return f"{num_images} pictures are in project {project!r}, ready to be judged."
