"""Freeze the judgments, train the score model on them, and score every picture of the project with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hfi.config import AskNext, ScoreConfig
from hfi.errors import NoFlaggedImagesError, NotFoundError
from hfi.jobs.judge import what_simulated_people_saw
from hfi.jobs.runs import StageResult, find_finished, latest_run, recorded_run, run_settings
from hfi.progress import QUIET, Progress, follow_steps
from storage import Store
from storage.records import Run, Snapshot
from storage.snapshot import create_snapshot, load_snapshot, preferences

if TYPE_CHECKING:
    from hfi.score import ScoreModel

SCORE_ARTIFACT = "score-model"
SCORED_AT_ONCE = 4096  # pictures, which bounds the memory
LIKELY = 0.5  # concept score from which a picture that nobody judged counts as showing it


def run_score(
    store: Store, config: ScoreConfig, project: str, progress: Progress = QUIET, *, snapshot_hash: str = ""
) -> StageResult:
    """Snapshot -> score model, with its AUROC on prompts it never saw: against the judgments, and where simulated
    annotators judged also against what they saw (`without_errors`), for their errors count against any model.

    Every picture of the project is scored, judged or not; of those that nobody has judged, people are asked first about
    the ones where the model is least sure (`config.ask_next`).

    Args:
        store: where judgments are and the model goes.
        config: the ensemble and the CLIP model it reads.
        project: a judged project of any kind. Flags and scores are learned by squared error; of pairs and rankings,
            whose first picture is the one that shows the concept most, Bradley-Terry learns the order.
        progress: told about embedding and training.
        snapshot_hash: the frozen judgments to learn from; empty: those of now, frozen.

    Raises:
        NoFlaggedImagesError: nobody flagged anything.
        OneSidedLabelsError: everything was flagged.
    """
    snapshot = load_snapshot(store, snapshot_hash) if snapshot_hash else create_snapshot(store, project)
    flagged = [image for image in snapshot.images if image.is_harmful]
    if not flagged:
        raise NoFlaggedImagesError(
            f"None of the {len(snapshot.images)} judged pictures of project {project!r} is flagged, so there is no "
            f"concept to learn. Judge more pictures, or generate some that show it."
        )
    unjudged = unjudged_pictures(store, project, snapshot)
    also = {"unjudged": digest_of(unjudged)} if unjudged else {}
    settings = run_settings(config, project, snapshot=snapshot.hash, **also)
    settings["config"].pop("ask_next", None)  # the order of the queue is no part of the model
    done = find_finished(store, "score", settings)
    if done is not None:
        _ask_first(store, project, config.ask_next, done)
        return StageResult(_summary(done), done, dict(done.metrics))
    from hfi.evaluate.metrics import auroc_interval
    from hfi.jobs.embeddings import embed_stored
    from hfi.score import train_score_model

    with recorded_run(store, "score", settings, snapshot.hash) as work:
        pictures = [image.sha256 for image in (*snapshot.images, *unjudged)]
        progress.start("score: embed", len(pictures))
        every = embed_stored(store, config.clip, pictures, config.device, progress)
        embeddings = every[: len(snapshot.images)]
        progress.start("score: train", config.max_epochs)
        labels = np.array([image.p_harmful for image in snapshot.images])
        groups = [image.prompt or image.sha256 for image in snapshot.images]  # pictures of one's own have no prompt
        row_of = {image.sha256: row for row, image in enumerate(snapshot.images)}
        compared = [(row_of[chosen], row_of[rejected]) for chosen, rejected in preferences(snapshot)]
        model, report = train_score_model(
            embeddings, labels, groups, config, follow_steps(progress), preferences=compared
        )
        parts = [model.score(every[start : start + SCORED_AT_ONCE]) for start in range(0, len(every), SCORED_AT_ONCE)]
        concept_scores, spread = (np.concatenate(side) for side in zip(*parts, strict=True))
        with store.writing_artifact(work.run.id, SCORE_ARTIFACT, "score_model", {"snapshot": snapshot.hash}) as folder:
            model.save(folder)
            scores = {
                sha256: [round(float(score), 5), round(float(sd), 5)]
                for sha256, score, sd in zip(pictures, concept_scores, spread, strict=True)
            }
            (folder / "scores.json").write_text(json.dumps(scores, sort_keys=True), encoding="utf-8")
            rows = report.held_out_rows
            held_out = {"scores": concept_scores[rows].tolist(), "is_flagged": (labels[rows] >= 0.5).tolist()}
            (folder / "held_out.json").write_text(json.dumps(held_out), encoding="utf-8")
        work.metrics.update(
            auroc=report.auroc, low=report.auroc_low, high=report.auroc_high, n=report.num_held_out,
            num_train=report.num_train, brier=report.brier, images=len(snapshot.images), flagged=len(flagged),
        )  # fmt: skip
        if unjudged:
            likely = int((concept_scores[len(snapshot.images) :] >= LIKELY).sum())
            work.metrics.update(unjudged=len(unjudged), unjudged_likely=likely)
        truth = what_simulated_people_saw(store, project)
        shown = [truth.get(snapshot.images[row].sha256) for row in rows]
        if None not in shown and len(set(shown)) == 2:
            work.metrics["without_errors"] = asdict(auroc_interval(shown, concept_scores[rows]))
        if compared:
            found = report.pair_accuracy
            work.metrics.update(comparisons=len(compared), pair_accuracy=asdict(found) if found else None)
        progress.finish(f"AUROC {report.auroc:.3f}" if report.auroc is not None else "")
    _ask_first(store, project, config.ask_next, work.run)
    return StageResult(_summary(work.run), work.run, dict(work.metrics))


@dataclass(frozen=True)
class UnjudgedPicture:
    """A picture of a project that nobody has judged, with the prompt it was made from and its bytes in memory (RGB)."""

    sha256: str
    prompt: str
    num_bytes: int


def unjudged_pictures(store: Store, project: str, snapshot: Snapshot) -> list[UnjudgedPicture]:
    """The project's pictures that are in no judged item and not in the snapshot, in the order they came.

    Hidden ones are left out, and those with a known answer (gold): it is not the model's to say.
    """
    known = {image.sha256 for image in snapshot.images}
    stored = {image.sha256: image for image in store.list_images(with_quarantined=True)}
    known |= {sha256 for sha256, image in stored.items() if image.is_quarantined}
    items = store.list_items(project)
    for item in items:
        if item.n_judgments or item.is_gold or item.status != "open":
            known.update(item.images)
    prompts = {record.image_sha256: record.params.prompt for record in store.list_generations(project)}
    new = dict.fromkeys(sha256 for item in items for sha256 in item.images if sha256 not in known)
    alone = {item.images[0]: item.prompt for item in items if len(item.images) == 1}
    return [
        UnjudgedPicture(
            sha256, prompts.get(sha256) or alone.get(sha256, ""), 3 * stored[sha256].width * stored[sha256].height
        )
        for sha256 in new
    ]


def digest_of(pictures: Sequence[UnjudgedPicture]) -> str:
    """One hash of which pictures these are, and of their prompts, in any order."""
    lines = sorted(f"{picture.sha256} {picture.prompt}" for picture in pictures)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def first_run_of_model(store: Store, run: Run) -> Run:
    """The first run that made this run's score model: later ones of the same judgments and settings only scored more
    pictures, so whatever rests on the model alone names the first."""
    same = [found for found in store.list_runs(kind="score", status="done") if _made_of(found) == _made_of(run)]
    return same[0] if same else run


def _made_of(run: Run) -> tuple[Any, ...]:
    config = {name: value for name, value in run.config.get("config", {}).items() if name != "ask_next"}
    return run.config.get("project"), run.snapshot_hash, config


def _ask_first(store: Store, project: str, how: AskNext, run: Run) -> None:
    """Put open items into the order of the model's doubt; the mean of an item's pictures counts."""
    if how == "unchanged":
        return
    scores = json.loads((store.artifact_dir(run.id) / SCORE_ARTIFACT / "scores.json").read_text(encoding="utf-8"))
    if how == "disagreement" and not any(spread for _, spread in scores.values()):  # an ensemble of one agrees
        how = "doubt"
    doubts = {}
    for item in store.list_items(project, status="open"):
        pairs = [scores[sha256] for sha256 in item.images if sha256 in scores]
        if pairs and len(pairs) == len(item.images):
            doubts[item.id] = float(np.mean([sd if how == "disagreement" else p * (1 - p) for p, sd in pairs]))
    store.set_uncertainties(project, doubts)


def _summary(run: Run) -> str:
    figures = run.metrics
    parts = []
    if figures["auroc"] is not None:
        area = f"{figures['auroc']:.3f} [{figures['low']:.3f}, {figures['high']:.3f}]"
        parts.append(f"held-out AUROC {area} on {figures['n']} pictures")
    if seen := figures.get("without_errors"):
        area = f"{seen['estimate']:.3f} [{seen['low']:.3f}, {seen['high']:.3f}]"
        parts.append(f"{area} against what the simulated annotators really saw")
    if pairs := figures.get("pair_accuracy"):
        share = f"{100 * pairs['estimate']:.1f} % [{100 * pairs['low']:.1f}, {100 * pairs['high']:.1f}]"
        parts.append(f"{share} of {pairs['n']} held-out comparisons as people decided them")
    more = ""
    if count := figures.get("unjudged", 0):
        likely = figures["unjudged_likely"]
        more = f" {count} pictures that nobody judged are scored too: {likely} look like the concept."
    if not parts:
        return f"Score model from {figures['images']} pictures; too few prompts were held out to measure it.{more}"
    return f"Score model from {figures['images']} pictures ({figures['flagged']} flagged): {'; '.join(parts)}.{more}"


def require_score_run(store: Store, project: str) -> Run:
    """The newest score model's run.

    Raises:
        NotFoundError: there is none yet.
    """
    run = latest_run(store, "score", project)
    if run is None:
        raise NotFoundError(f"Project {project!r} has no score model yet: run `hfi score` first.")
    return run


def load_scored_snapshot(store: Store, run: Run) -> tuple[Snapshot, ScoreModel, dict[str, float]]:
    """What a score run was made from and made: its snapshot, the model, and every picture's concept score, judged or
    not."""
    from hfi.score import load_score_model

    folder = store.artifact_dir(run.id) / SCORE_ARTIFACT
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return (
        load_snapshot(store, run.snapshot_hash),
        load_score_model(folder),
        {sha: pair[0] for sha, pair in scores.items()},
    )
