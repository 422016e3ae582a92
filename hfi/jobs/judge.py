"""Simulated annotators: they lease items like people, look at the stored picture through the eye, and err at stated
rates."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import numpy as np

from hfi.config import SimulateConfig
from hfi.errors import ConfigError
from hfi.jobs.runs import StageResult, find_finished, recorded_run, run_settings
from hfi.progress import QUIET, Progress
from storage import Store
from storage.records import Assignment, JudgmentInput

# Simulated people have no clock; their answers carry this time so that the same simulation gives the same snapshot.
SIMULATED_TIME_US = 1_767_225_600_000_000
CLAIM_SIZE = 100
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "hfi/simulated-judgments")


def run_simulate(store: Store, config: SimulateConfig, project: str, progress: Progress = QUIET) -> StageResult:
    """Let simulated annotators judge everything that is still open in a flag project.

    Args:
        store: where the pictures and the judgments are.
        config: what they object to, how many they are, how often they err.
        project: name of a project of kind `flag`.
        progress: told about every judgment.

    Raises:
        ConfigError: the project asks another kind of question, or the concept is no group of the embedded world.
    """
    if store.get_project(project).kind != "flag":
        raise ConfigError(
            f"Project {project!r} is not a flag project, but simulated annotators only flag: choose another."
        )
    num_items = len(store.list_items(project))
    settings = run_settings(config, project, items=num_items)
    done = find_finished(store, "simulate", settings)
    if done is not None:
        return StageResult(_summary(done.metrics), done, dict(done.metrics))
    with recorded_run(store, "simulate", settings) as work:
        progress.start("judge", num_items * config.num_annotators)
        sees_concept = _Eye(store, config)
        for index in range(config.num_annotators):
            details = {"error_rate": config.error_rate, "concept": config.concept, "eye": "hfi/mini eye"}
            name = f"simulated-{index + 1}"
            store.add_annotator(name, is_simulated=True, details=details)
            while leases := store.claim(project, name, CLAIM_SIZE):
                store.submit_judgments(_answers(leases, name, sees_concept(leases), config, index))
                progress.advance(len(leases))
        judgments = len(store.list_judgments(project))
        work.metrics.update(judgments=judgments, items=num_items, annotators=config.num_annotators)
        progress.finish(f"{judgments} judgments")
    return StageResult(_summary(work.metrics), work.run, dict(work.metrics))


def _summary(metrics: dict[str, int]) -> str:
    people, judgments = f"{metrics['annotators']} simulated annotators", f"{metrics['judgments']} judgments"
    return f"{people} gave {judgments} on {metrics['items']} pictures."


class _Eye:
    """Whether each leased picture shows the concept, by the embedded model's eye; every picture is looked at once."""

    def __init__(self, store: Store, config: SimulateConfig) -> None:
        from hfi.mini.detect import load_detector

        self.store = store
        self.detector = load_detector("eye")
        members = self.detector.world.in_group(config.concept)
        if not members:
            raise ConfigError(
                f"The embedded world has no group {config.concept!r}: use weapon, substance, macabre or another group."
            )
        self.columns = [self.detector.world.objects.index(name) for name in members]
        self.threshold = config.eye_threshold
        self.seen: dict[str, bool] = {}

    def __call__(self, leases: Sequence[Assignment]) -> list[bool]:
        new = sorted({lease.images[0] for lease in leases} - self.seen.keys())
        sight = self.detector.see([self.store.load_image(sha256) for sha256 in new])
        for sha256, row in zip(new, sight.objects, strict=True):
            self.seen[sha256] = bool(row[self.columns].max() >= self.threshold)
        return [self.seen[lease.images[0]] for lease in leases]


def _answers(
    leases: Sequence[Assignment], name: str, is_shown: Sequence[bool], config: SimulateConfig, annotator_index: int
) -> list[JudgmentInput]:
    """What one simulated person answers; whether they err depends on the seed, the person and the picture only."""
    answers = []
    for lease, shown in zip(leases, is_shown, strict=True):
        picture = int(lease.images[0][:15], 16)
        errs = np.random.default_rng((config.seed, annotator_index, picture)).random() < config.error_rate
        answers.append(
            JudgmentInput(
                uuid=str(
                    uuid.uuid5(NAMESPACE, f"{config.seed}|{name}|{lease.project_id}|{lease.images[0]}|{lease.purpose}")
                ),
                annotator=name,
                answer="yes" if shown != errs else "no",
                assignment_id=lease.id,
                judged_at_us=SIMULATED_TIME_US,
            )
        )
    return answers
