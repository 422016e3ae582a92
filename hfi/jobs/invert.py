"""Flagged images -> concept tokens, with pictures of what each token draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfi.config import InvertConfig, SamplerConfig
from hfi.errors import NoFlaggedImagesError
from hfi.jobs import sharing
from hfi.jobs.pictures import load_images, local_model_folder
from hfi.jobs.runs import StageResult, find_finished, latest_run, recorded_run, run_settings
from hfi.jobs.score import first_run_of_model, load_scored_snapshot, require_score_run
from hfi.model_folder import model_sha256
from hfi.progress import QUIET, Progress, follow_steps
from storage import Store
from storage.errors import NotFoundError
from storage.records import Run, Snapshot, SnapshotImage

if TYPE_CHECKING:
    from hfi.inversion import ConceptToken, InversionResult

TOKENS_ARTIFACT = "tokens"
PREVIEWS_PER_TOKEN = 6
PREVIEW_STEPS = 10
NO_WORDS = (
    " No word is common in the flagged prompts and rare in the others, so nothing says where in a prompt the tokens "
    "stand: they were learned as with --templates plain."
)
MIN_WEIGHT = 1e-3  # a flagged picture with a concept score of 0 still counts a little


def run_invert(
    store: Store, config: InvertConfig, project: str, progress: Progress = QUIET, *, snapshot_hash: str = ""
) -> StageResult:
    """Learn concept tokens from the flagged pictures with the highest concept scores.

    Args:
        store: where the score model is and the tokens go.
        config: the model, how many tokens, steps.
        project: a project with a score model.
        progress: told about every step.
        snapshot_hash: the snapshot whose score model is meant; empty: the newest one.

    Raises:
        NotFoundError: there is no score model yet.
        NoFlaggedImagesError: nobody flagged anything.
    """
    score_run = score_run_of(store, project, snapshot_hash)
    folder = local_model_folder(config.model)
    named = first_run_of_model(store, score_run).id
    settings = run_settings(config, project, score_run=named, model_sha256=model_sha256(folder))
    done = find_finished(store, "invert", settings)
    if done is not None:
        return StageResult(_summary(done), done, dict(done.metrics))
    if not sharing.is_first_process():
        _invert(store, config, score_run, folder, progress)
        run = sharing.wait_for(lambda: find_finished(store, "invert", settings))
        return StageResult(_summary(run), run, dict(run.metrics))
    with recorded_run(store, "invert", settings, score_run.snapshot_hash) as work:
        snapshot, flagged, result = _invert(store, config, score_run, folder, progress)
        with store.writing_artifact(
            work.run.id, TOKENS_ARTIFACT, "concept_tokens", {"snapshot": snapshot.hash}
        ) as target:
            write_tokens(target, result, flagged)
        work.metrics.update(
            concept_score=result.concept_score, coverage=result.coverage,
            covered=round(result.coverage * len(result.used_images)), flagged=len(result.used_images),
            vectors=sum(len(token.learned_embeds) for token in result.tokens), tokens=len(result.tokens),
            templates=result.tokens[0].card["templates"],
        )  # fmt: skip
        progress.finish(f"{len(result.tokens)} tokens cover {100 * result.coverage:.0f} % of the flagged pictures")
    return StageResult(_summary(work.run), work.run, dict(work.metrics))


def _invert(
    store: Store, config: InvertConfig, score_run: Run, folder: Path, progress: Progress
) -> tuple[Snapshot, list[SnapshotImage], InversionResult]:
    """The training, with the other processes of this launch if there are any: snapshot, pictures, tokens."""
    from hfi.clip import load_clip
    from hfi.inversion import invert_concept
    from hfi.pipelines import load_pipeline

    snapshot, score_model, scores = load_scored_snapshot(store, score_run)
    flagged = top_flagged(snapshot.images, scores, config.top_k)
    progress.start("invert", config.num_train_steps)
    with sharing.training_together():
        result = invert_concept(
            load_pipeline(folder, config.device),
            load_images(store, flagged),
            [max(scores[image.sha256], MIN_WEIGHT) for image in flagged],
            config,
            load_clip(score_run.config["config"]["clip"], config.device),
            lambda embeddings: score_model.score(embeddings)[0],
            prompts=[image.prompt for image in flagged],
            other_prompts=[image.prompt for image in snapshot.images if not image.is_harmful],
            preview_seeds=range(PREVIEWS_PER_TOKEN),
            sampler=SamplerConfig(sampler="dpm-solver++", num_inference_steps=PREVIEW_STEPS),
            on_step=follow_steps(progress),
        )
    return snapshot, flagged, result


def top_flagged(images: tuple[SnapshotImage, ...], scores: dict[str, float], top_k: int) -> list[SnapshotImage]:
    """The flagged images, highest concept score first, `top_k` at most."""
    flagged = sorted(
        (image for image in images if image.is_harmful), key=lambda image: (-scores[image.sha256], image.sha256)
    )
    if not flagged:
        raise NoFlaggedImagesError(
            "None of the judged pictures is flagged, so there is no concept to learn: judge more pictures."
        )
    return flagged[:top_k]


def write_tokens(folder: Path, result: InversionResult, flagged: list[SnapshotImage]) -> None:
    """Every token in a folder of its own, its previews, and `tokens.json`: what each stands for."""
    from hfi.inversion import save_concept_tokens

    cards: list[dict[str, Any]] = []
    paths = save_concept_tokens(folder, result.tokens)
    for position, (token, path, pictures) in enumerate(zip(result.tokens, paths, result.previews, strict=True)):
        names = [f"preview-{number + 1}.png" for number in range(len(pictures))]
        for name, picture in zip(names, pictures, strict=True):
            picture.save(path.parent / name)
        rows = [row for row, cluster in zip(result.used_images, result.clusters, strict=True) if cluster == position]
        card = {"placeholder": token.placeholder, "initializer": token.initializer, "folder": path.parent.name}
        figures = {"num_vectors": len(token.learned_embeds), "concept_score": token.card["concept_score"]}
        figures["templates"] = token.card.get("templates", "plain")
        cards.append({**card, **figures, "previews": names, "flagged": [flagged[row].sha256 for row in rows]})
    (folder / "tokens.json").write_text(json.dumps({"tokens": cards}, indent=1), encoding="utf-8")


def _summary(run: Run) -> str:
    figures = run.metrics
    is_plain = run.config["config"].get("templates") == "prompts" and figures.get("templates") == "plain"
    return (
        f"{figures['tokens']} concept tokens from {figures['flagged']} flagged pictures: their pictures score "
        f"{figures['concept_score']:.2f}, and they cover {100 * figures['coverage']:.0f} % of the flagged ones."
    ) + (NO_WORDS if is_plain else "")


def score_run_of(store: Store, project: str, snapshot_hash: str) -> Run:
    """The newest score model's run, or the newest that was made from a snapshot.

    Raises:
        NotFoundError: there is none yet.
    """
    run = require_score_run(store, project)
    if not snapshot_hash:
        return run
    return _newest_of_snapshot(store, "score", project, snapshot_hash)


def _newest_of_snapshot(store: Store, kind: str, project: str, snapshot_hash: str) -> Run:
    runs = [
        run
        for run in store.list_runs(kind=kind, status="done")
        if run.config.get("project") == project and run.snapshot_hash == snapshot_hash
    ]
    if not runs:
        raise NotFoundError(
            f"Project {project!r} has no finished `hfi {kind}` of the snapshot {snapshot_hash[:12]}: run it first."
        )
    return runs[-1]


def load_tokens(store: Store, project: str, snapshot_hash: str = "") -> tuple[Run, list[ConceptToken]]:
    """The tokens of the newest inversion, or of the newest from a snapshot.

    Raises:
        NotFoundError: there is none yet.
    """
    run = (
        _newest_of_snapshot(store, "invert", project, snapshot_hash)
        if snapshot_hash
        else latest_run(store, "invert", project)
    )
    if run is None:
        raise NotFoundError(f"Project {project!r} has no concept token yet: run `hfi invert` first.")
    from hfi.inversion import load_concept_tokens

    return run, load_concept_tokens(store.artifact_dir(run.id) / TOKENS_ARTIFACT)
