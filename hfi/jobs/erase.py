"""Concept tokens and flagged prompts -> a changed model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfi.config import EraseConfig
from hfi.errors import WeakTokenError
from hfi.jobs.invert import TOKENS_ARTIFACT, load_tokens, top_flagged
from hfi.jobs.pictures import load_images, local_model_folder
from hfi.jobs.runs import StageResult, find_finished, recorded_run, run_settings
from hfi.jobs.score import load_scored_snapshot, require_score_run
from hfi.model_folder import model_sha256
from hfi.progress import Progress
from storage import Store
from storage.records import Run, Snapshot, SnapshotImage

if TYPE_CHECKING:
    from hfi.inversion import ConceptToken

MODEL_ARTIFACT = "model"
LOSSES_NAME = "losses.json"
MIN_TOKEN_SCORE = 0.3
MAX_RETAINED = 512


def run_erase(store: Store, config: EraseConfig, project: str, progress: Progress) -> StageResult:
    """Train a copy of the model until it no longer draws what the targets ask for, and save it as a folder.

    Args:
        store: where tokens, flagged pictures and the changed model are.
        config: targets, method, steps.
        project: a project with a score model, and with tokens unless only prompts are targets.
        progress: told about every step.

    Raises:
        NotFoundError: the score model or the tokens are missing.
        WeakTokenError: no token reproduces the concept, and nothing else is a target.
    """
    score_run = require_score_run(store, project)
    token_run, tokens = (None, []) if config.targets == "prompts" else _strong_tokens(store, project, config)
    folder = local_model_folder(config.model)
    inputs = {
        "score_run": score_run.id,
        "token_run": token_run.id if token_run else "",
        "model_sha256": model_sha256(folder),
    }
    settings = run_settings(config, project, **inputs)
    done = find_finished(store, "erase", settings)
    if done is not None:
        return StageResult(_summary(done), done, dict(done.metrics))
    snapshot, _, scores = load_scored_snapshot(store, score_run)
    with recorded_run(store, "erase", settings, snapshot.hash) as work:
        flagged = top_flagged(snapshot.images, scores, len(snapshot.images))
        figures = _erase(store, config, work.run, folder, token_run, tokens, flagged, _retained(snapshot), progress)
        work.metrics.update(figures)
    return StageResult(_summary(work.run), work.run, dict(work.metrics))


def _strong_tokens(store: Store, project: str, config: EraseConfig) -> tuple[Run, list[ConceptToken]]:
    """The tokens whose own pictures show the concept; a token that does not must not erase anything."""
    run, tokens = load_tokens(store, project)
    strong = [
        token
        for token in tokens
        if config.allow_weak_tokens or token.card.get("concept_score", 1.0) >= MIN_TOKEN_SCORE
    ]
    if not strong and config.targets == "tokens":
        best = max(token.card.get("concept_score", 0.0) for token in tokens)
        raise WeakTokenError(
            f"None of the {len(tokens)} tokens reproduces the concept: the best scores {best:.2f}, at least "
            f"{MIN_TOKEN_SCORE} is needed. "
            f"Invert again with more steps or vectors, erase with --targets prompts, or add --allow-weak-tokens."
        )
    return run, strong


def _retained(snapshot: Snapshot) -> list[SnapshotImage]:
    """Unflagged pictures, whose prompts must go on drawing what they draw."""
    return [image for image in snapshot.images if not image.is_harmful][:MAX_RETAINED]


def _erase(
    store: Store,
    config: EraseConfig,
    run: Run,
    folder: Path,
    token_run: Run | None,
    tokens: list[ConceptToken],
    flagged: list[SnapshotImage],
    retained: list[SnapshotImage],
    progress: Progress,
) -> dict[str, Any]:
    from hfi.erase import erase_sdd, export_folder, target_pairs
    from hfi.pipelines import load_pipeline

    pipeline = load_pipeline(folder, config.device)
    clusters = _token_of_each(store, token_run, tokens, flagged) if token_run else []
    rows, prompts = target_pairs(config.targets, [image.prompt or None for image in flagged], tokens, clusters)
    pictures = load_images(store, flagged)
    checkpoint_dir = store.artifact_dir(run.id) / "checkpoint"
    progress.start(f"erase: {config.targets}", config.num_train_steps)
    result = erase_sdd(
        pipeline,
        prompts,
        config,
        images=[pictures[row] for row in rows],
        tokens=tokens,
        retain_prompts=[image.prompt for image in retained],
        retain_images=load_images(store, retained) or None,
        on_step=lambda done, total: progress.advance(),
        checkpoint_dir=checkpoint_dir,
    )
    target = store.artifact_dir(run.id) / MODEL_ARTIFACT
    if not target.exists():
        export_folder(pipeline, result.unet, target)
    losses = {"erase": result.erase_losses, "retain": result.retain_losses}
    (target / LOSSES_NAME).write_text(json.dumps(losses), encoding="utf-8")
    store.add_artifact(run.id, MODEL_ARTIFACT, "model", target, details={"method": config.method})
    shutil.rmtree(checkpoint_dir, ignore_errors=True)
    progress.finish(f"{result.num_trainable / 1e6:.1f} M weights trained")
    return {
        "steps": config.num_train_steps, "targets": config.targets, "tokens": len(tokens), "flagged": len(flagged),
        "retained": len(retained), "num_trainable": result.num_trainable, "model_sha256": model_sha256(target),
    }  # fmt: skip


def _token_of_each(store: Store, run: Run, tokens: list[ConceptToken], flagged: list[SnapshotImage]) -> list[int]:
    """Index of the token that stands for each flagged picture, as the inversion recorded it; -1 = none."""
    cards = json.loads((store.artifact_dir(run.id) / TOKENS_ARTIFACT / "tokens.json").read_text(encoding="utf-8"))[
        "tokens"
    ]
    names = [token.placeholder for token in tokens]
    token_of = {
        sha: names.index(card["placeholder"])
        for card in cards
        if card["placeholder"] in names
        for sha in card["flagged"]
    }
    return [token_of.get(image.sha256, -1) for image in flagged]


def _summary(run: Run) -> str:
    figures = run.metrics
    return f"A changed model after {figures['steps']} steps (run {run.id}); targets: {figures['targets']}."
