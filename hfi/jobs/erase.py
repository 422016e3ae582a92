"""Concept tokens, flagged prompts or words -> a changed model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfi.config import EraseConfig, SamplerConfig
from hfi.errors import NotFoundError, WeakTokenError
from hfi.jobs import sharing
from hfi.jobs.erase_samples import (
    SAMPLE_STEPS,
    SAMPLES_ARTIFACT,
    ErasureWatch,
    SampleWish,
    choose_prompts,
    read_samples,
    samples_folder,
    score_pictures_with,
)
from hfi.jobs.invert import MIN_WEIGHT, TOKENS_ARTIFACT, load_tokens, score_run_of, top_flagged
from hfi.jobs.pictures import load_images, local_model_folder
from hfi.jobs.runs import StageResult, find_finished, recorded_run, run_settings
from hfi.jobs.score import (
    LIKELY,
    UnjudgedPicture,
    digest_of,
    first_run_of_model,
    load_scored_snapshot,
    unjudged_pictures,
)
from hfi.model_folder import model_sha256
from hfi.progress import QUIET, Progress
from hfi.prompt_words import caption_of, concept_words, says_any
from storage import Store
from storage.records import Run, Snapshot, SnapshotImage, config_hash
from storage.snapshot import load_snapshot

if TYPE_CHECKING:
    from hfi.erase import Concept
    from hfi.inversion import ConceptToken
    from hfi.pipelines import Pipeline

MODEL_ARTIFACT = "model"
LOSSES_NAME = "losses.json"
MIN_TOKEN_SCORE = 0.3
# In the demo, pictures of weapon prompts that score .1 to .2 show a weapon in 72 of 100 cases (docs/LOG.md).
LIKELY_IF_NAMED = 0.1
MAX_RETAINED = 512  # pictures; all of them are in memory
MAX_UNJUDGED_BYTES = 2**29  # of each side, besides: 683 pictures of 512 px, 43,690 of 64 px


@dataclass(frozen=True)
class _Inputs:
    """What an erasure rests on: runs, tokens, and the model's folder."""

    score_run: Run
    token_run: Run | None
    tokens: list[ConceptToken]
    num_weak: int
    folder: Path


def run_erase(
    store: Store,
    config: EraseConfig,
    project: str,
    progress: Progress = QUIET,
    *,
    snapshot_hash: str = "",
    samples: SampleWish | None = None,
) -> StageResult:
    """Change a copy of the model until it no longer draws what the targets ask for, and save it as a folder.

    Args:
        store: where tokens, flagged pictures and the changed model are.
        config: targets, method, steps.
        project: a project with a score model, and with tokens if they are targets.
        progress: told about every step.
        snapshot_hash: the snapshot whose score model and tokens are meant; empty: the newest ones.
        samples: which pictures are drawn while it runs, to look at; they change nothing of the result.

    Raises:
        NotFoundError: the score model or the tokens are missing.
        WeakTokenError: no token reproduces the concept, and nothing else is a target.
    """
    inputs = _find_inputs(store, config, project, snapshot_hash)
    settings = _settings(store, config, project, inputs)
    done = find_finished(store, "erase", settings)
    if done is not None:
        if samples is not None:
            _sample_finished(store, config, done, inputs, progress, samples)
        return StageResult(_summary(done), done, dict(done.metrics))
    if not sharing.is_first_process():
        _train_share(store, config, config_hash(settings), inputs)
        run = sharing.wait_for(lambda: find_finished(store, "erase", settings))
        return StageResult(_summary(run), run, dict(run.metrics))
    with recorded_run(store, "erase", settings, inputs.score_run.snapshot_hash) as work:
        work.metrics.update(_erase(store, config, work.run, inputs, progress, samples))
    return StageResult(_summary(work.run), work.run, dict(work.metrics))


def find_erased(store: Store, config: EraseConfig, project: str) -> Run | None:
    """The run that already made this very erasure, if there is one.

    Raises:
        NotFoundError, WeakTokenError: as `run_erase`.
    """
    return find_finished(store, "erase", _settings(store, config, project, _find_inputs(store, config, project, "")))


def _settings(store: Store, config: EraseConfig, project: str, inputs: _Inputs) -> dict[str, Any]:
    token_run = inputs.token_run.id if inputs.token_run else ""
    score_run = first_run_of_model(store, inputs.score_run).id
    weights = model_sha256(inputs.folder)
    also = {}
    if config.unjudged != "ignore":  # what is hidden since then is in no erasure
        snapshot = load_snapshot(store, inputs.score_run.snapshot_hash)
        likely, unlikely = _unjudged(store, config, snapshot, inputs)
        also["unjudged"] = digest_of([*likely, *unlikely])
    return run_settings(config, project, score_run=score_run, token_run=token_run, model_sha256=weights, **also)


def estimate_erase(store: Store, config: EraseConfig, project: str) -> str:
    """Expected time and memory of an erasure, in words, from a few timed steps; nothing is stored.

    Raises:
        NotFoundError: the score model or the tokens are missing.
        WeakTokenError: no token reproduces the concept, and nothing else is a target.
    """
    inputs = _find_inputs(store, config, project, "")
    from hfi.erase import estimate
    from hfi.pipelines import load_pipeline

    concept, _ = _gather_concept(store, config, inputs)
    return str(estimate(load_pipeline(inputs.folder, config.device), concept, config))


def _find_inputs(store: Store, config: EraseConfig, project: str, snapshot_hash: str) -> _Inputs:
    score_run = score_run_of(store, project, snapshot_hash)
    folder = local_model_folder(config.model)
    if config.targets not in ("tokens", "both"):
        return _Inputs(score_run, None, [], 0, folder)
    token_run, tokens = load_tokens(store, project, snapshot_hash)
    strong = strong_tokens(tokens, config)
    return _Inputs(score_run, token_run, strong, len(tokens) - len(strong), folder)


def strong_tokens(tokens: list[ConceptToken], config: EraseConfig) -> list[ConceptToken]:
    """The tokens whose own pictures show the concept; a token that does not must not erase anything.

    Raises:
        WeakTokenError: there is none, and nothing else is a target.
    """
    strong = [
        token for token in tokens if config.allow_weak_tokens or token.card.get("concept_score", 1.0) >= MIN_TOKEN_SCORE
    ]
    if not strong and config.targets == "tokens":
        best = max(token.card.get("concept_score", 0.0) for token in tokens)
        raise WeakTokenError(
            f"None of the {len(tokens)} tokens reproduces the concept: the best scores {best:.2f}, at least "
            f"{MIN_TOKEN_SCORE} is needed. "
            f"Invert again with more steps or vectors, erase with --targets prompts, or add --allow-weak-tokens."
        )
    return strong


def _gather_concept(store: Store, config: EraseConfig, inputs: _Inputs) -> tuple[Concept, dict[str, Any]]:
    """What is erased and what is kept, as the eraser takes it; and how much it is."""
    from hfi.erase import Concept, split_texts, target_pairs
    from hfi.erase.concept import anchor_prompts

    snapshot, _, scores = load_scored_snapshot(store, inputs.score_run)
    judged = top_flagged(snapshot.images, scores, len(snapshot.images))
    clusters = _token_of_each(store, inputs.token_run, inputs.tokens, judged) if inputs.token_run else []
    likely, unlikely = _unjudged(store, config, snapshot, inputs)
    flagged: list[SnapshotImage | UnjudgedPicture] = [*judged]
    if config.targets != "tokens":  # which stand for judged pictures alone
        flagged += likely
    known = [image.prompt or None for image in flagged]
    captions = _captions(known, inputs, snapshot)
    rows, prompts = target_pairs(config.targets, known, inputs.tokens, clusters, split_texts(config.text), captions)
    pictures = load_images(store, flagged) if config.method != "closed_form" else []
    retained: list[SnapshotImage | UnjudgedPicture] = []
    if not config.retain_text:
        retained = [*_retained(snapshot, config), *unlikely]
    concept = Concept(
        prompts,
        images=[pictures[row] for row in rows] if pictures else None,
        weights=[max(scores[flagged[row].sha256], MIN_WEIGHT) for row in rows],
        picture_prompts=[known[row] or "" for row in rows],
        captions=[captions[row] for row in rows] if captions else None,
        tokens=inputs.tokens,
        retain_prompts=split_texts(config.retain_text) or [image.prompt for image in retained],
        retain_images=(load_images(store, retained) or None) if pictures else None,
    )
    counts = {"tokens": len(inputs.tokens), "weak_tokens": inputs.num_weak, "flagged": len(judged)}
    pairs = zip(prompts, anchor_prompts(concept, config), strict=True)
    counts["example"] = next(([p, anchor] for p, anchor in reversed([*pairs]) if p != anchor), None)
    if config.unjudged != "ignore":
        erased = {row for row in rows if row >= len(judged)}
        counts |= {
            "unjudged_erased": len(erased),
            "unjudged_retained": sum(isinstance(picture, UnjudgedPicture) for picture in retained),
        }
    return concept, counts | {"retained": len(concept.retain_prompts)}


def _captions(prompts: Sequence[str | None], inputs: _Inputs, snapshot: Snapshot) -> list[str]:
    """What tokens that were learned in their pictures' prompts are erased in: those prompts; else nothing."""
    if not any(token.card.get("templates") == "prompts" for token in inputs.tokens):
        return []
    flagged = [image.prompt for image in snapshot.images if image.is_harmful]
    words = concept_words(flagged, [image.prompt for image in snapshot.images if not image.is_harmful])
    return [caption_of(prompt or "", words) for prompt in prompts]


def _unjudged(
    store: Store, config: EraseConfig, snapshot: Snapshot, inputs: _Inputs
) -> tuple[list[UnjudgedPicture], list[UnjudgedPicture]]:
    """Pictures that nobody judged, to erase and to retain: those of which score and prompt say the same.

    What people flagged has words that other prompts do not have (`concept_words`). They are evidence themselves, so a
    picture whose prompt says one is erased from a low score on; one whose prompt says none is retained below LIKELY.
    Where there are no such words, as in a style that is never named, the score decides alone. Pictures that came after
    the score model are left out.

    Raises:
        NotFoundError: there is none that the score model has scored.
    """
    if config.unjudged == "ignore":
        return [], []
    project = inputs.score_run.config["project"]
    _, _, scores = load_scored_snapshot(store, inputs.score_run)
    pictures = [picture for picture in unjudged_pictures(store, project, snapshot) if picture.sha256 in scores]
    if not pictures:
        raise NotFoundError(
            f"unjudged is 'by_score', but project {project!r} has no scored picture that nobody judged: run "
            f"`hfi score` again (after `hfi generate`, if every picture is judged), or leave unjudged at 'ignore'."
        )
    flagged = [image.prompt for image in snapshot.images if image.is_harmful]
    words = concept_words(flagged, [image.prompt for image in snapshot.images if not image.is_harmful])
    sides: tuple[list[UnjudgedPicture], list[UnjudgedPicture]] = ([], [])
    for picture in sorted(pictures, key=lambda picture: (-scores[picture.sha256], picture.sha256)):
        is_named = says_any(picture.prompt, words)
        if scores[picture.sha256] >= (LIKELY_IF_NAMED if is_named else LIKELY):
            if is_named or not words:
                sides[0].append(picture)
        elif not is_named:
            sides[1].append(picture)
    return _cut(sides[0]), _cut(sides[1])


def _cut(pictures: list[UnjudgedPicture]) -> list[UnjudgedPicture]:
    """As many as may be in memory at once, whichever (their names are hashes), in the order they had."""
    by_name = sorted(pictures, key=lambda picture: picture.sha256)
    totals = accumulate(picture.num_bytes for picture in by_name)
    chosen = {picture.sha256 for picture, total in zip(by_name, totals, strict=True) if total <= MAX_UNJUDGED_BYTES}
    return [picture for picture in pictures if picture.sha256 in chosen]


def _retained(snapshot: Snapshot, config: EraseConfig) -> list[SnapshotImage]:
    """Unflagged pictures, whose prompts must go on drawing what they draw; not those that say the concept's words."""
    unflagged = [image for image in snapshot.images if not image.is_harmful]
    if not config.retain_ambiguous:
        flagged_prompts = [image.prompt for image in snapshot.images if image.is_harmful]
        words = concept_words(flagged_prompts, [image.prompt for image in unflagged])
        unflagged = [image for image in unflagged if not says_any(image.prompt, words)]
    return unflagged[:MAX_RETAINED]


def _erase(
    store: Store, config: EraseConfig, run: Run, inputs: _Inputs, progress: Progress, samples: SampleWish | None
) -> dict[str, Any]:
    from hfi.erase import count_steps, erase, export_folder
    from hfi.erase.training import watching_training
    from hfi.inversion import save_concept_tokens
    from hfi.pipelines import load_pipeline

    pipeline = load_pipeline(inputs.folder, config.device)
    concept, counts = _gather_concept(store, config, inputs)
    checkpoint_dir = store.artifact_dir(run.id) / "checkpoint"
    progress.start(f"erase: {config.targets}", count_steps(config))
    watch = _build_watch(store, config, run, inputs, pipeline, progress, samples)
    watch.draw(0, pipeline.unet)
    with sharing.training_together(), watching_training(watch.look):
        result = erase(pipeline, concept, config, watch.count_step, checkpoint_dir=checkpoint_dir)
    watch.draw(count_steps(config), result.unet)
    target = store.artifact_dir(run.id) / MODEL_ARTIFACT
    if not target.exists():
        export_folder(pipeline, result.unet, target)
    losses = {"erase": result.erase_losses, "retain": result.retain_losses}
    (target / LOSSES_NAME).write_text(json.dumps(losses), encoding="utf-8")
    if result.tokens:
        save_concept_tokens(store.artifact_dir(run.id) / TOKENS_ARTIFACT, result.tokens)
    store.add_artifact(run.id, MODEL_ARTIFACT, "model", target, details={"method": config.method})
    _record_samples(store, run)
    shutil.rmtree(checkpoint_dir, ignore_errors=True)
    progress.finish(f"{result.num_trainable / 1e6:.1f} M weights {_verb(config)}")
    return counts | {
        "method": config.method, "steps": count_steps(config), "targets": config.targets,
        "num_trainable": result.num_trainable, "model_sha256": model_sha256(target),
        "erase_seconds": round(result.seconds - watch.seconds_looking, 2),
        "erase_peak_memory_mib": round(result.peak_memory_mib, 1),
    }  # fmt: skip


def _train_share(store: Store, config: EraseConfig, settings_hash: str, inputs: _Inputs) -> None:
    """Train with the first process of this launch, from the same checkpoint; keep nothing."""
    from hfi.erase import erase
    from hfi.pipelines import load_pipeline

    run = sharing.wait_for(
        lambda: store.find_run("erase", settings_hash, status="running") or store.find_run("erase", settings_hash)
    )
    if run.status == "done":  # the closed form shares nothing, so it may be over already
        return
    pipeline = load_pipeline(inputs.folder, config.device)
    concept, _ = _gather_concept(store, config, inputs)
    with sharing.training_together():
        erase(pipeline, concept, config, checkpoint_dir=store.artifact_dir(run.id) / "checkpoint")


def _build_watch(
    store: Store,
    config: EraseConfig,
    run: Run,
    inputs: _Inputs,
    pipeline: Pipeline,
    progress: Progress,
    samples: SampleWish | None,
) -> ErasureWatch:
    folder = samples_folder(store, run.id)
    if samples is None:
        return ErasureWatch(progress, pipeline, folder)
    snapshot, score_model, scores = load_scored_snapshot(store, inputs.score_run)
    flagged = [image.prompt for image in top_flagged(snapshot.images, scores, len(snapshot.images))]
    prompts = choose_prompts(samples, flagged, [image.prompt for image in _retained(snapshot, config)])
    sampler = SamplerConfig(num_inference_steps=SAMPLE_STEPS, guidance_scale=max(1.0, config.sampling_guidance_scale))
    score = score_pictures_with(score_model, inputs.score_run.config["config"]["clip"], config.device)
    return ErasureWatch(progress, pipeline, folder, prompts, samples.every_n_steps, sampler, score)


def _sample_finished(
    store: Store, config: EraseConfig, run: Run, inputs: _Inputs, progress: Progress, samples: SampleWish
) -> None:
    """Samples of an erasure that was done without: before and after it."""
    if read_samples(samples_folder(store, run.id)) is not None:
        return
    from hfi.pipelines import load_pipeline

    progress.start("erase: samples")
    pipeline = load_pipeline(inputs.folder, config.device)
    watch = _build_watch(store, config, run, inputs, pipeline, progress, samples)
    watch.draw(0, pipeline.unet)
    model = load_pipeline(store.artifact_dir(run.id) / MODEL_ARTIFACT, config.device)
    watch.draw(int(run.metrics["steps"]), model.unet)
    _record_samples(store, run)
    progress.finish()


def _record_samples(store: Store, run: Run) -> None:
    folder = samples_folder(store, run.id)
    if folder.is_dir() and all(artifact.name != SAMPLES_ARTIFACT for artifact in store.list_artifacts(run.id)):
        store.add_artifact(run.id, SAMPLES_ARTIFACT, "samples", folder)


def _verb(config: EraseConfig) -> str:
    return "solved for" if config.method == "closed_form" else "trained"


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
    weak = figures.get("weak_tokens", 0)
    left_out = f" {weak} tokens do not reproduce the concept and were left out." if weak else ""
    target, anchor = figures.get("example") or ("", "")
    example = f" For instance '{target}' is to be drawn as '{anchor or 'nothing in particular'}'." if target else ""
    return (
        f"A changed model after {figures['steps']} steps (run {run.id}); targets: {figures['targets']}."
        f"{left_out}{example}"
    )
