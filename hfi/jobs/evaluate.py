"""Measure a changed model against its original: same held-out prompts, same seeds, one protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hfi.config import SAMPLER_NAMES, EvaluateConfig
from hfi.errors import InvalidInputError, NotFoundError
from hfi.evaluate.metrics import difference_of_paired_rates, wilson_interval
from hfi.evaluate.protocol import Protocol, check_same, hash_prompts, use_protocol, write_result
from hfi.evaluate.repeats import QUESTIONS
from hfi.evaluate.suites import EvaluationPrompt, Suite, load_suite
from hfi.jobs import sharing
from hfi.jobs.pictures import PictureMaker, default_size_px
from hfi.jobs.runs import StageResult, find_finished, latest_run, recorded_run, run_settings
from hfi.jobs.score import SCORE_ARTIFACT, require_score_run
from hfi.progress import QUIET, Progress
from storage import Store
from storage.errors import NotFoundError as StoreNotFoundError
from storage.records import GenerationRecord, Run

if TYPE_CHECKING:
    from hfi.evaluate.detectors import Detector, Reading
    from hfi.generate import GenerationRequest
    from hfi.guidance import Guard

EVALUATION_ARTIFACT = "evaluation"
EVALUATION_ROLE = "evaluation"
CACHE_NAME = "detectors.db"


@dataclass(frozen=True)
class JudgedPicture:
    """One picture of an evaluation: where it came from and what the detector says.

    `shows_concept` is the question for concept prompts; `is_right` (every object asked for is there) for the others;
    `rest_is_there` for prompts that name the concept and something else. None: not asked, not known, or not readable;
    `failure` then says why it could not be read.
    """

    part: str
    prompt: str
    seed: int
    image: str
    shows_concept: bool | None
    is_right: bool | None
    rest_is_there: bool | None
    failure: str = ""


def run_evaluate(
    store: Store, config: EvaluateConfig, project: str, progress: Progress = QUIET, *, guard: Guard | None = None
) -> StageResult:
    """Concept rate and damage before and after, with Wilson intervals and paired differences.

    Args:
        store: pictures are kept there, so that an interrupted evaluation goes on at the next batch.
        config: the two models, the protocol or its settings.
        project: whose erased model and score model are meant.
        progress: told about every batch.
        guard: measure the original with this held back while sampling, instead of a changed model.

    Raises:
        NotFoundError: there is no erased model.
        PromptFileError: there is no such suite.
        ConfigError: there is no such protocol, or this would be another measurement than its file describes.
    """
    config, wanted = use_protocol(config)
    before = PictureMaker(store, project, config.model, config.device)
    after, erase_run = _changed_maker(store, config, project, guard)
    suite, detector = suite_and_detector(store, config, project)
    protocol = build_protocol(config, suite, detector, before.folder)
    if wanted is not None:
        check_same(wanted, protocol)
    models = {"before": before.model_sha256, "after": after.identity}
    held_back: dict[str, Any] = {"guard": {"kind": guard.kind, **guard.provenance()}} if guard else {}
    settings = run_settings(config, project, models=list(models.values()), protocol=protocol.sha256, **held_back)
    done = find_finished(store, "evaluate", settings)
    if done is not None:
        return StageResult(_summary(done), done, dict(done.metrics))
    from hfi.jobs.damage import measure_damage

    makers = {"before": before, "after": after}
    if not sharing.is_first_process():
        for name, maker in makers.items():
            _make_together(maker, suite, config, progress, f"evaluate: {name}")
        run = sharing.wait_for(lambda: find_finished(store, "evaluate", settings))
        return StageResult(_summary(run), run, dict(run.metrics))
    with recorded_run(store, "evaluate", settings, erase_run.snapshot_hash if erase_run else None) as work:
        for name, maker in makers.items():
            _make_together(maker, suite, config, progress, f"evaluate: {name}")
        rows = {
            name: judged_pictures(store, maker, suite, config, detector, progress, f"evaluate: {name}")
            for name, maker in makers.items()
        }
        figures = measure(rows["before"], rows["after"], config.confidence)
        figures["damage"] = measure_damage(store, config, suite, rows, (before, after), progress)
        work.metrics.update(figures, erased_run=erase_run.id if erase_run else "", protocol=protocol.sha256)
        work.metrics.update(held_back)
        pictures = {name: [asdict(row) for row in judged] for name, judged in rows.items()}
        content = {"protocol": protocol, "models": models, "group": suite.group, "pictures": pictures}
        write_result_once(store, work.run, EVALUATION_ARTIFACT, {**content, "figures": work.metrics})
    return StageResult(_summary(work.run), work.run, dict(work.metrics))


def _changed_maker(
    store: Store, config: EvaluateConfig, project: str, guard: Guard | None
) -> tuple[PictureMaker, Run | None]:
    """What is measured: the changed model with its run, or the original with a guard."""
    if guard is not None:
        return PictureMaker(store, project, config.model, config.device, guard=guard), None
    folder, erase_run = erased_folder(store, config, project)
    erased_id = f"run:{erase_run.id}" if erase_run else ""
    return PictureMaker(store, project, str(folder), config.device, model_id=erased_id), erase_run


def _make_together(maker: PictureMaker, suite: Suite, config: EvaluateConfig, progress: Progress, stage: str) -> None:
    """Make the suite's pictures with the other processes of this launch; alone, leave that to who reads them."""
    if sharing.num_processes() > 1:
        maker.make_together(_requests(suite), config, EVALUATION_ROLE, progress, stage)


def _requests(suite: Suite) -> list[GenerationRequest]:
    from hfi.generate import GenerationRequest

    return [GenerationRequest(prompt.prompt, prompt.seed) for prompt in (*suite.concept, *suite.others)]


def write_result_once(store: Store, run: Run, name: str, content: Mapping[str, Any]) -> None:
    """A result as the run's artifact; an earlier start of this run may have written it and been stopped after that."""
    folder = store.artifact_dir(run.id) / name
    if not folder.exists():
        with store.writing_artifact(run.id, name, "evaluation") as target:
            write_result(target, content)
    elif all(artifact.name != name for artifact in store.list_artifacts(run.id)):
        store.add_artifact(run.id, name, "evaluation", folder)


def erased_folder(store: Store, config: Any, project: str) -> tuple[Path, Run | None]:
    """The changed model that `config.erased` means: a folder, a run's, or the newest of the project.

    Raises:
        NotFoundError: it is neither, or there is none yet.
    """
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


def build_protocol(
    config: EvaluateConfig, suite: Suite, detector: Detector, model_folder: Path, budget: str = ""
) -> Protocol:
    """What this configuration, these prompts and these weights amount to."""
    size_px = default_size_px(model_folder)
    return Protocol(
        name=config.protocol if config.protocol and not config.protocol.endswith(".json") else suite.name,
        suite=suite.name,
        prompts_sha256=hash_prompts([*suite.concept, *suite.others]),
        num_concept_images=len(suite.concept),
        num_other_images=len(suite.others),
        first_seed=config.first_seed,
        sampler=SAMPLER_NAMES[config.sampler],
        num_inference_steps=config.num_inference_steps,
        guidance_scale=config.guidance_scale,
        width_px=size_px,
        height_px=size_px,
        detectors=(detector.spec,),
        confidence=config.confidence,
        budget=budget,
    )


def suite_and_detector(store: Store, config: EvaluateConfig, project: str) -> tuple[Suite, Detector]:
    """The prompts, and who says what is in their pictures.

    Raises:
        NotFoundError: the project has no score model and nothing else was named.
    """
    is_mini = config.suite.startswith("mini-")
    name = config.detector
    if name == "auto":
        name = "judge" if is_mini else "score" if latest_run(store, "score", project) else "opennsfw"
    if is_mini:
        from hfi.mini.world import embedded_world

        suite = load_suite(config, embedded_world())
    else:
        suite = load_suite(config, None)
    return suite, load_named_detector(store, name, config, project, suite.group)


def load_named_detector(store: Store, name: str, config: Any, project: str, group: str = "") -> Detector:
    """A detector by its name; `config` gives its path and device.

    Raises:
        InvalidInputError: the judge was asked about prompts of another world.
        ConfigError, ModelFolderError: its package or its weights are missing.
    """
    if name == "judge":
        if not group:
            raise InvalidInputError("The judge knows the embedded world only: use a suite mini-..., or --detector.")
        from hfi.evaluate.detector_judge import build_judge

        return build_judge(group)
    if name == "score":
        from hfi.evaluate.detector_own import build_score_detector

        run = require_score_run(store, project)
        return build_score_detector(
            store.artifact_dir(run.id) / SCORE_ARTIFACT, run.config["config"]["clip"], config.device
        )
    if name == "q16":
        from hfi.evaluate.detector_q16 import build_q16

        return build_q16(config.detector_path, config.device)
    if name == "nudenet":
        from hfi.evaluate.detector_nudenet import build_nudenet

        return build_nudenet()
    from hfi.evaluate.detector_opennsfw import OpenNsfw

    return OpenNsfw()


def judged_pictures(
    store: Store,
    maker: PictureMaker,
    suite: Suite,
    config: EvaluateConfig,
    detector: Detector,
    progress: Progress,
    stage: str,
) -> list[JudgedPicture]:
    """The suite's pictures by one model, made where missing, and what the detector says of each."""
    prompts = [*suite.concept, *suite.others]
    parts = ["concept"] * len(suite.concept) + ["others"] * len(suite.others)
    records: list[GenerationRecord] = maker.make(_requests(suite), config, EVALUATION_ROLE, progress, stage)
    readings = cached_readings(store, detector, [record.image_sha256 for record in records])
    return [
        judged(part, prompt, record.image_sha256, readings[record.image_sha256], detector)
        for part, prompt, record in zip(parts, prompts, records, strict=True)
    ]


def cached_readings(store: Store, detector: Detector, sha256s: Sequence[str]) -> dict[str, Reading]:
    """What the detector says of stored pictures; each is read once in the store's life."""
    from hfi.evaluate.detector_cache import DetectorCache
    from hfi.evaluate.detectors import read_pictures

    with DetectorCache(store.path / "cache" / CACHE_NAME) as cache:
        return read_pictures(detector, sha256s, store.load_image, cache)


def judged(part: str, prompt: EvaluationPrompt, image: str, reading: Reading, detector: Detector) -> JudgedPicture:
    """The three questions, answered from scores; nothing is answered where there are none.

    A detector that does not see all that a prompt asks for (a score model) can only say that the concept is not there.
    """
    shows = reading.is_flagged(detector.spec)
    if shows is None:
        return JudgedPicture(part, prompt.prompt, prompt.seed, image, None, None, None, reading.failure)
    if not prompt.objects or not set(prompt.objects) <= reading.scores.keys():  # nobody sees what else should be there
        return JudgedPicture(part, prompt.prompt, prompt.seed, image, shows, not shows, None)
    is_there = {name: reading.scores.get(name, 0.0) >= detector.spec.threshold for name in prompt.objects}
    rest = [name for name in prompt.objects if name not in detector.spec.classes]
    rest_is_there = all(is_there[name] for name in rest) if 0 < len(rest) < len(prompt.objects) else None
    return JudgedPicture(part, prompt.prompt, prompt.seed, image, shows, all(is_there.values()), rest_is_there)


def measure(before: Sequence[JudgedPicture], after: Sequence[JudgedPicture], confidence: float) -> dict[str, Any]:
    """Rates with intervals, each before, after and their paired difference.

    Returns:
        `removal`: concept prompts whose picture shows the concept. `others_accuracy`: other prompts whose picture shows
        all that was asked for. `in_prompt_rest`: of the prompts that name both, pictures with the harmless object (left
        out when there is none). `unread`: pictures that could not be judged; their pairs are in no rate.

    Raises:
        InvalidInputError: not one pair of a part could be judged.
    """
    figures: dict[str, Any] = {}
    for name, (part, question) in QUESTIONS.items():
        pairs = _answered_pairs(before, after, part, question)
        if pairs:
            answers = [np.array(side, dtype=bool) for side in zip(*pairs, strict=True)]
            rates = [wilson_interval(int(a.sum()), len(a), confidence) for a in answers]
            rates.append(difference_of_paired_rates(answers[1], answers[0], confidence))
            named = zip(("before", "after", "difference"), rates, strict=True)
            figures[name] = {key: {"rate": i.estimate, "low": i.low, "high": i.high, "n": i.n} for key, i in named}
        elif name != "in_prompt_rest":
            reasons = {row.failure for row in (*before, *after) if row.failure}
            raise InvalidInputError(
                f"Not one picture of the part {part!r} could be judged: {'; '.join(reasons)[:300]}."
            )
    figures["unread"] = {
        key: sum(bool(r.failure) for r in rows) for key, rows in (("before", before), ("after", after))
    }
    return figures


def _answered_pairs(
    before: Sequence[JudgedPicture], after: Sequence[JudgedPicture], part: str, question: str
) -> list[tuple[bool, bool]]:
    """Answers to the same prompt and seed before and after, where both are known."""
    pairs = [
        (getattr(first, question), getattr(second, question))
        for first, second in zip(before, after, strict=True)
        if first.part == part
    ]
    return [pair for pair in pairs if None not in pair]


def _summary(run: Run) -> str:
    removal, others, unread = (run.metrics[name] for name in ("removal", "others_accuracy", "unread"))

    def text(rates: Mapping[str, Any]) -> str:
        parts = [
            f"{100 * rates[k]['rate']:.1f} % [{100 * rates[k]['low']:.1f}, {100 * rates[k]['high']:.1f}]"
            for k in ("before", "after")
        ]
        return f"{parts[0]} -> {parts[1]}"

    missing = sum(unread.values())
    warning = f" {missing} pictures could not be judged; their pairs are in no rate." if missing else ""
    return (
        f"Pictures that show the concept: {text(removal)} (n = {removal['after']['n']}). "
        f"Other pictures that are right: {text(others)} (n = {others['after']['n']}).{warning}"
    )
