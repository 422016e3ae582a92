"""Freeze the judgments, train the score model on them, and score every picture of the project with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

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
    done = find_finished(store, "score", settings)
    if done is not None:
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
        concept_scores, spread = model.score(every)
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
            _ask_first(store, project, config.ask_next, scores)
        truth = what_simulated_people_saw(store, project)
        shown = [truth.get(snapshot.images[row].sha256) for row in rows]
        if None not in shown and len(set(shown)) == 2:
            work.metrics["without_errors"] = asdict(auroc_interval(shown, concept_scores[rows]))
        if compared:
            found = report.pair_accuracy
            work.metrics.update(comparisons=len(compared), pair_accuracy=asdict(found) if found else None)
        progress.finish(f"AUROC {report.auroc:.3f}" if report.auroc is not None else "")
    return StageResult(_summary(work.run), work.run, dict(work.metrics))


@dataclass(frozen=True)
class UnjudgedPicture:
    """A picture of a project that no snapshot has a label for."""

    sha256: str
    prompt: str


def unjudged_pictures(store: Store, project: str, snapshot: Snapshot) -> list[UnjudgedPicture]:
    """The project's pictures that the snapshot has no label for, in the order they came; hidden ones are left out."""
    judged = {image.sha256 for image in snapshot.images}
    hidden = {image.sha256 for image in store.list_images(with_quarantined=True) if image.is_quarantined}
    prompts = {
        sha256: item.prompt
        for item in store.list_items(project)
        if item.status != "hidden"
        for sha256 in item.images
        if sha256 not in judged and sha256 not in hidden
    }
    return [UnjudgedPicture(sha256, prompt) for sha256, prompt in prompts.items()]


def digest_of(pictures: Sequence[UnjudgedPicture]) -> str:
    """One hash of which pictures these are, in any order."""
    return hashlib.sha256(" ".join(sorted(picture.sha256 for picture in pictures)).encode()).hexdigest()


def _ask_first(store: Store, project: str, how: AskNext, scores: Mapping[str, Sequence[float]]) -> None:
    """Put items that nobody has judged into the order of the model's doubt; the mean of an item's pictures counts."""
    if how == "unchanged":
        return
    doubts = {}
    for item in store.list_items(project, status="open"):
        if item.n_judgments == 0 and all(sha256 in scores for sha256 in item.images):
            pairs = [scores[sha256] for sha256 in item.images]
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
