"""Measure a changed model against its original: same held-out prompts, same seeds, one judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hfi.config import EvaluateConfig
from hfi.errors import NotFoundError
from hfi.evaluate.metrics import difference_of_paired_rates, wilson_interval
from hfi.evaluate.suites import EvaluationPrompt, Suite, load_suite
from hfi.jobs.pictures import PictureMaker, load_images
from hfi.jobs.runs import StageResult, find_finished, latest_run, recorded_run, run_settings
from hfi.jobs.score import load_scored_snapshot, require_score_run
from hfi.progress import Progress
from storage import Store
from storage.errors import NotFoundError as StoreNotFoundError
from storage.records import GenerationRecord, Run

EVALUATION_ARTIFACT = "evaluation"
JUDGE_THRESHOLD = 0.5


@dataclass(frozen=True)
class JudgedPicture:
    """One picture of an evaluation: where it came from and what the judge says.

    `shows_concept` is the question for concept prompts; `is_right` (every object asked for is there) for the others;
    `rest_is_there` for prompts that name the concept and something else (None: nothing else, or not known).
    """

    part: str
    prompt: str
    seed: int
    image: str
    shows_concept: bool
    is_right: bool
    rest_is_there: bool | None


Verdict = tuple[bool, bool, bool | None]
# Pictures and their prompts -> (shows the concept, is right, the rest is there) of each.
Judge = Callable[[list[Any], Sequence[EvaluationPrompt]], list[Verdict]]


def run_evaluate(store: Store, config: EvaluateConfig, project: str, progress: Progress) -> StageResult:
    """Concept rate and damage before and after, with Wilson intervals and paired differences.

    Args:
        store: pictures are kept there, so that an interrupted evaluation goes on at the next batch.
        config: the two models, the suite, the sampler.
        project: whose erased model and score model are meant.
        progress: told about every batch.

    Raises:
        NotFoundError: there is no erased model.
        PromptFileError: there is no such suite.
    """
    folder, erase_run = erased_folder(store, config, project)
    before = PictureMaker(store, project, config.model, config.device)
    erased_id = f"run:{erase_run.id}" if erase_run else ""
    after = PictureMaker(store, project, str(folder), config.device, model_id=erased_id)
    suite, judge, judge_facts = _suite_and_judge(store, config, project)
    settings = run_settings(
        config,
        project,
        models=[before.model_sha256, after.model_sha256],
        judge=judge_facts,
        prompts=_prompt_hash(suite),
    )
    done = find_finished(store, "evaluate", settings)
    if done is not None:
        return StageResult(_summary(done), done, dict(done.metrics))
    with recorded_run(store, "evaluate", settings, erase_run.snapshot_hash if erase_run else None) as work:
        rows = {
            name: _judged(store, maker, suite, config, judge, progress, f"evaluate: {name}")
            for name, maker in (("before", before), ("after", after))
        }
        work.metrics.update(measure(rows["before"], rows["after"], config.confidence))
        work.metrics["erased_run"] = erase_run.id if erase_run else ""
        with store.writing_artifact(work.run.id, EVALUATION_ARTIFACT, "evaluation") as target:
            content = {
                "protocol": {"suite": suite.name, "judge": judge_facts, **config.model_dump(mode="json")},
                "models": {"before": before.model_sha256, "after": after.model_sha256},
                "pictures": {name: [asdict(row) for row in judged] for name, judged in rows.items()},
                "figures": work.metrics,
            }
            (target / "evaluation.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return StageResult(_summary(work.run), work.run, dict(work.metrics))


def erased_folder(store: Store, config: EvaluateConfig, project: str) -> tuple[Path, Run | None]:
    """The changed model that is meant: a folder, a run's, or the newest of the project."""
    if config.erased and Path(config.erased).is_dir():
        return Path(config.erased), None
    if config.erased:
        try:
            run: Run | None = store.get_run(config.erased)
        except StoreNotFoundError as error:
            raise NotFoundError(f"{config.erased!r} is neither a model folder nor a run: check --erased.") from error
    else:
        run = latest_run(store, "erase", project)
    if run is None or run.kind != "erase" or run.status != "done":
        raise NotFoundError(f"Project {project!r} has no erased model yet: run `hfi erase` first.")
    return store.artifact_dir(run.id) / "model", run


def _prompt_hash(suite: Suite) -> str:
    from storage.records import sha256_text

    return sha256_text(json.dumps([asdict(p) for p in (*suite.concept, *suite.others)], sort_keys=True))


def _judged(
    store: Store,
    maker: PictureMaker,
    suite: Suite,
    config: EvaluateConfig,
    judge: Judge,
    progress: Progress,
    stage: str,
) -> list[JudgedPicture]:
    from hfi.generate import GenerationRequest

    prompts = [*suite.concept, *suite.others]
    parts = ["concept"] * len(suite.concept) + ["others"] * len(suite.others)
    requests = [GenerationRequest(p.prompt, p.seed) for p in prompts]
    records: list[GenerationRecord] = maker.make(requests, config, "evaluation", progress, stage)
    verdicts = judge(load_images(store, records), prompts)
    return [
        JudgedPicture(part, p.prompt, p.seed, record.image_sha256, *verdict)
        for part, p, record, verdict in zip(parts, prompts, records, verdicts, strict=True)
    ]


def _suite_and_judge(store: Store, config: EvaluateConfig, project: str) -> tuple[Suite, Judge, dict[str, Any]]:
    """The prompts, who judges their pictures, and what to write down about the judge."""
    if not config.suite.startswith("mini-"):
        run = require_score_run(store, project)
        judge = _score_judge(store, run)
        return load_suite(config, None), judge, {"name": "score model", "run": run.id, "threshold": JUDGE_THRESHOLD}
    from hfi.mini.detect import load_detector

    detector = load_detector("judge")
    suite = load_suite(config, detector.world)
    columns = [detector.world.objects.index(name) for name in detector.world.in_group(suite.group)]

    def judge_scenes(images: list[Any], prompts: Sequence[EvaluationPrompt]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        for row, prompt in zip(detector.see(images).objects >= JUDGE_THRESHOLD, prompts, strict=True):
            asked = [detector.world.objects.index(name) for name in prompt.objects]
            rest = [column for column in asked if column not in columns]
            is_mixed = 0 < len(rest) < len(asked)
            rest_is_there = bool(row[rest].all()) if is_mixed else None
            verdicts.append((bool(row[columns].any()), bool(row[asked].all()), rest_is_there))
        return verdicts

    facts = {"name": "hfi/mini judge", "sha256": detector.sha256, "threshold": JUDGE_THRESHOLD, "group": suite.group}
    return suite, judge_scenes, facts


def _score_judge(store: Store, run: Run) -> Judge:
    """The project's own score model, for suites whose pictures nobody can check otherwise: `is_right` = not the
    concept."""
    from hfi.clip import embed_images, load_clip

    _, model, _ = load_scored_snapshot(store, run)
    clip = load_clip(run.config["config"]["clip"])

    def judge(images: list[Any], prompts: Sequence[EvaluationPrompt]) -> list[Verdict]:
        shows = model.score(embed_images(clip, images))[0] >= JUDGE_THRESHOLD
        return [(bool(s), not s, None) for s in shows]

    return judge


def measure(before: Sequence[JudgedPicture], after: Sequence[JudgedPicture], confidence: float) -> dict[str, Any]:
    """Rates with intervals, each before, after and their paired difference.

    Returns:
        `removal`: concept prompts whose picture shows the concept. `others_accuracy`: other prompts whose picture shows
        all that was asked for. `in_prompt_rest`: of the prompts that name both, pictures with the harmless object (left
        out when there is none).
    """
    questions = {
        "removal": ("concept", "shows_concept"),
        "others_accuracy": ("others", "is_right"),
        "in_prompt_rest": ("concept", "rest_is_there"),
    }
    figures: dict[str, Any] = {}
    for name, (part, question) in questions.items():
        answers = [_answers(rows, part, question) for rows in (before, after)]
        if len(answers[0]):
            rates = [wilson_interval(int(a.sum()), len(a), confidence) for a in answers]
            rates.append(difference_of_paired_rates(answers[1], answers[0], confidence))
            named = zip(("before", "after", "difference"), rates, strict=True)
            figures[name] = {key: {"rate": i.estimate, "low": i.low, "high": i.high, "n": i.n} for key, i in named}
    return figures


def _answers(rows: Sequence[JudgedPicture], part: str, question: str) -> np.ndarray:
    found = [getattr(row, question) for row in rows if row.part == part]
    return np.array([answer for answer in found if answer is not None], dtype=bool)


def _summary(run: Run) -> str:
    removal, others = run.metrics["removal"], run.metrics["others_accuracy"]

    def text(rates: dict[str, Any]) -> str:
        parts = [
            f"{100 * rates[k]['rate']:.1f} % [{100 * rates[k]['low']:.1f}, {100 * rates[k]['high']:.1f}]"
            for k in ("before", "after")
        ]
        return f"{parts[0]} -> {parts[1]}"

    return (
        f"Pictures that show the concept: {text(removal)} (n = {removal['after']['n']}). "
        f"Other pictures that are right: {text(others)} (n = {others['after']['n']})."
    )
