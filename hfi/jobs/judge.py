"""Simulated annotators: they lease items like people, look at the stored picture through the eye, and err at stated
rates."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from hfi.config import SimulateConfig
from hfi.errors import ConflictError
from hfi.jobs.runs import StageResult, find_finished, recorded_run, run_settings
from hfi.progress import QUIET, Progress
from storage import Store
from storage.records import Assignment, JudgmentInput, config_hash

# Simulated people have no clock; their answers carry this time so that the same simulation gives the same snapshot.
SIMULATED_TIME_US = 1_767_225_600_000_000
CLAIM_SIZE = 100
SEEN_ARTIFACT = "seen"
SEEN_NAME = "seen.json"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "hfi/simulated-judgments")


def run_simulate(store: Store, config: SimulateConfig, project: str, progress: Progress = QUIET) -> StageResult:
    """Let simulated annotators judge everything that is still open in a project of any kind.

    Args:
        store: where the pictures and the judgments are.
        config: what they object to, how many they are, how often they err.
        project: name of the project.
        progress: told about every judgment.

    Raises:
        ConfigError: the embedded world has no such concept.
    """
    items = store.list_items(project)
    num_items = len(items)
    settings = run_settings(config, project, items=num_items)
    done = find_finished(store, "simulate", settings)
    if done is not None:
        return StageResult(_summary(done.metrics), done, dict(done.metrics))
    with recorded_run(store, "simulate", settings) as work:
        progress.start("judge", num_items * config.num_annotators)
        eye = _Eye(store, config)
        for index in range(config.num_annotators):
            details = {"error_rate": config.error_rate, "concept": config.concept, "eye": "hfi/mini eye"}
            name = _add_person(store, f"simulated-{index + 1}", details)
            while leases := store.claim(project, name, CLAIM_SIZE):
                seen = eye.look({sha256 for lease in leases for sha256 in lease.images})
                store.submit_judgments(_answers(leases, name, seen, config, index))
                progress.advance(len(leases))
        judgments = len(store.list_judgments(project))
        pictures = {sha256 for item in items for sha256 in item.images}
        is_shown = {sha256: amount >= config.eye_threshold for sha256, amount in sorted(eye.look(pictures).items())}
        with store.writing_artifact(work.run.id, SEEN_ARTIFACT, "seen") as folder:
            (folder / SEEN_NAME).write_text(json.dumps(is_shown), encoding="utf-8")
        work.metrics.update(judgments=judgments, items=num_items, annotators=config.num_annotators)
        progress.finish(f"{judgments} judgments")
    return StageResult(_summary(work.metrics), work.run, dict(work.metrics))


def _add_person(store: Store, name: str, details: Mapping[str, Any]) -> str:
    """Add a simulated person and return the name; one who errs otherwise, or minds something else, is somebody else."""
    try:
        return store.add_annotator(name, is_simulated=True, details=details).name
    except ConflictError:
        return store.add_annotator(f"{name}-{config_hash(details)[:8]}", is_simulated=True, details=details).name


def _summary(metrics: dict[str, int]) -> str:
    people, judgments = f"{metrics['annotators']} simulated annotators", f"{metrics['judgments']} judgments"
    return f"{people} gave {judgments} on {metrics['items']} pictures."


class _Eye:
    """How much each leased picture shows the concept, by the embedded model's eye; every picture is looked at once."""

    def __init__(self, store: Store, config: SimulateConfig) -> None:
        from hfi.mini.concepts import style_of, suite_of_concept
        from hfi.mini.detect import load_detector

        self.store = store
        self.detector = load_detector("eye")
        world = self.detector.world
        suite_of_concept(config.concept, world)
        style = style_of(config.concept)
        self.is_style = bool(style)
        names = world.styles if style else world.objects
        members = (style,) if style else world.in_group(config.concept)
        self.columns = [names.index(name) for name in members]
        self.seen: dict[str, float] = {}

    def look(self, pictures: Collection[str]) -> dict[str, float]:
        """Picture hash -> probability that the concept is there, in [0, 1], of these and all looked at before."""
        new = sorted(set(pictures) - self.seen.keys())
        sight = self.detector.see([self.store.load_image(sha256) for sha256 in new])
        rows = sight.styles if self.is_style else sight.objects
        for sha256, row in zip(new, rows, strict=True):
            self.seen[sha256] = float(row[self.columns].max())
        return self.seen


def what_simulated_people_saw(store: Store, project: str) -> dict[str, bool]:
    """Picture hash -> whether the simulated annotators of a project would say that it shows the concept, if they never
    erred; empty where none judged."""
    seen: dict[str, bool] = {}
    runs = store.list_runs(kind="simulate", status="done")
    for run in [run for run in runs if run.config.get("project") == project]:
        path = store.artifact_dir(run.id) / SEEN_ARTIFACT / SEEN_NAME
        if path.is_file():  # older stores have none
            seen |= json.loads(path.read_text(encoding="utf-8"))
    return seen


def _answers(
    leases: Sequence[Assignment], name: str, seen: Mapping[str, float], config: SimulateConfig, annotator_index: int
) -> list[JudgmentInput]:
    """What one simulated person answers; whether they err depends on the seed, the person and the picture only."""

    def errs(sha256: str) -> bool:
        """Whether this person takes the picture for the opposite of what it is."""
        picture = int(sha256[:15], 16)
        return bool(np.random.default_rng((config.seed, annotator_index, picture)).random() < config.error_rate)

    answers = []
    for lease in leases:
        if lease.kind == "flag":
            is_shown = seen[lease.images[0]] >= config.eye_threshold
            said: dict[str, Any] = {"answer": "yes" if is_shown != errs(lease.images[0]) else "no"}
        else:
            amounts = [1.0 - seen[sha256] if errs(sha256) else seen[sha256] for sha256 in lease.images]
            said = answer_by_amount(lease.kind, amounts)
        identity = f"{config.seed}|{name}|{lease.project_id}|{','.join(lease.images)}|{lease.purpose}"
        answers.append(
            JudgmentInput(
                uuid=str(uuid.uuid5(NAMESPACE, identity)),
                annotator=name,
                assignment_id=lease.id,
                judged_at_us=SIMULATED_TIME_US,
                **said,
            )
        )
    return answers


def answer_by_amount(kind: str, amounts: Sequence[float]) -> dict[str, Any]:
    """The answer of somebody who takes the pictures for showing so much of the concept; tenths are told apart.

    Args:
        kind: score, pair or ranking.
        amounts: [pictures], in [0, 1].
    """
    tenths = [round(10 * amount) for amount in amounts]
    if kind == "score":
        return {"answer": "scored", "score": 1 + round(4 * amounts[0])}
    if kind == "pair":
        return {"answer": "tie" if tenths[0] == tenths[1] else "first" if tenths[0] > tenths[1] else "second"}
    places = sorted(set(tenths), reverse=True)
    return {"answer": "ranked", "ranks": tuple(1 + places.index(tenth) for tenth in tenths)}
