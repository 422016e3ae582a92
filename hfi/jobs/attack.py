"""Try to get the concept back out of a changed model: rates before and after each attack, with its budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfi.config import SCHEDULERS, AttackConfig, EvaluateConfig
from hfi.errors import ConfigError, NotFoundError
from hfi.evaluate.i2p import any_flagged
from hfi.evaluate.metrics import Interval, wilson_interval
from hfi.evaluate.suites import EvaluationPrompt, Suite
from hfi.jobs.evaluate import (
    JudgedPicture,
    build_protocol,
    cached_readings,
    erased_folder,
    judged_pictures,
    suite_and_detector,
    write_result_once,
)
from hfi.jobs.pictures import PictureMaker
from hfi.jobs.runs import StageResult, find_finished, recorded_run, run_settings
from hfi.mini.concepts import concept_of_suite, has_other_words
from hfi.progress import Progress, follow_steps
from storage import Store
from storage.records import GenerationParams, Run, sha256_text

if TYPE_CHECKING:
    from PIL import Image

    from hfi.evaluate.detectors import Detector

ATTACKS = ("reinversion", "prefix", "synonyms", "latents")
ATTACK_ARTIFACT = "attack"
TITLES = {
    "reinversion": "A word learned again on the changed model (CCE)",
    "prefix": "Words searched to stand before the prompt (as UnlearnDiffAtk)",
    "synonyms": "Other words for the same thing",
    "latents": "Inverted latents, no words at all (as TINA)",
}
NEW_SEEDS = 50_000  # added to the suite's first seed where an attack draws pictures of its own
MAX_INVERTED = 64  # pictures of the concept that a new word is learned from
Flags = list[bool | None]


@dataclass(frozen=True)
class Target:
    """What is attacked: prompts whose original picture shows the concept, and both models' pictures of them."""

    prompts: list[EvaluationPrompt]
    images: list[str]
    """The original's pictures, by hash."""
    flags: Flags
    """Whether the changed model shows the concept without an attack."""


@dataclass(frozen=True)
class Outcome:
    """What an attack achieved: verdicts with it, of a control where there is one, and what it drew."""

    flags: Flags
    budget: str
    note: str
    pictures: list[dict[str, Any]]
    control: Flags | None = None


def run_attack(store: Store, config: AttackConfig, project: str, progress: Progress) -> list[StageResult]:
    """One attack, or all of them; each is a run of its own and goes on where it was.

    Args:
        store: pictures and results are kept there.
        config: the two models, the suite, the budgets.
        project: whose erased model and score model are meant.
        progress: told about every step.

    Raises:
        NotFoundError: there is no erased model, or the original does not draw the concept.
        ConfigError: other words were asked for outside the embedded world, without a file of them.
    """
    names = ATTACKS if config.attack == "all" else (config.attack,)
    if config.attack == "all" and not (has_other_words(concept_of_suite(config.suite)) or config.prompts):
        names = tuple(name for name in names if name != "synonyms")
    return [_run_one(store, config.model_copy(update={"attack": name}), project, progress) for name in names]


def _run_one(store: Store, config: AttackConfig, project: str, progress: Progress) -> StageResult:
    folder, erase_run = erased_folder(store, config, project)
    before = PictureMaker(store, project, config.model, config.device)
    erased_id = f"run:{erase_run.id}" if erase_run else ""
    after = PictureMaker(store, project, str(folder), config.device, model_id=erased_id)
    evaluate = _evaluate_config(config)
    suite, detector = suite_and_detector(store, evaluate, project)
    suite = replace(suite, others=())
    models = {"before": before.model_sha256, "after": after.model_sha256}
    settings = run_settings(config, project, models=list(models.values()), detector=detector.spec.model_dump())
    done = find_finished(store, "attack", settings)
    if done is not None:
        return StageResult(_summary(done), done, dict(done.metrics))
    with recorded_run(store, "attack", settings, erase_run.snapshot_hash if erase_run else None) as work:
        target = _target(store, before, after, suite, evaluate, detector, progress)
        attack = _Attack(store, project, after, before, evaluate, detector, progress)
        outcome: Outcome = getattr(attack, config.attack)(target, suite, config)
        protocol = build_protocol(evaluate, suite, detector, before.folder, budget=outcome.budget)
        figures = measure_attack(target.flags, outcome, config.confidence)
        work.metrics.update(
            figures, attack=config.attack, title=TITLES[config.attack], budget=outcome.budget, note=outcome.note,
            model_sha256=after.model_sha256, suite=suite.name, protocol=protocol.sha256,
            erased_run=erase_run.id if erase_run else "",
        )  # fmt: skip
        content = {"protocol": protocol, "models": models, "group": suite.group, "figures": work.metrics}
        write_result_once(store, work.run, ATTACK_ARTIFACT, {**content, "pictures": {"attack": outcome.pictures}})
    return StageResult(_summary(work.run), work.run, dict(work.metrics))


def measure_attack(before: Sequence[bool | None], outcome: Outcome, confidence: float) -> dict[str, Any]:
    """Rates with intervals without and with the attack, and of its control; pictures nobody could read are counted.

    Raises:
        NotFoundError: not one picture could be judged.
    """
    figures: dict[str, Any] = {"unread": sum(flag is None for flag in (*before, *outcome.flags))}
    sides = {"before_attack": before, "after_attack": outcome.flags, "control": outcome.control or []}
    for name, flags in sides.items():
        known = [flag for flag in flags if flag is not None]
        if known:
            interval: Interval = wilson_interval(sum(known), len(known), confidence)
            low, high = interval.low, interval.high
            figures[name] = {"rate": interval.estimate, "low": low, "high": high, "n": interval.n}
        elif name != "control":
            raise NotFoundError("Not one picture of the attack could be judged: see why the detector fails.")
    return figures


def _evaluate_config(config: AttackConfig) -> EvaluateConfig:
    """The evaluation whose pictures and protocol the attack shares."""
    shared = set(EvaluateConfig.model_fields) & set(AttackConfig.model_fields)
    fields = config.model_dump(include=shared)
    return EvaluateConfig(**fields, num_concept_images=config.num_images, num_other_images=1)


def _target(
    store: Store,
    before: PictureMaker,
    after: PictureMaker,
    suite: Suite,
    config: EvaluateConfig,
    detector: Detector,
    progress: Progress,
) -> Target:
    originals = judged_pictures(store, before, suite, config, detector, progress, "attack: original")
    changed = judged_pictures(store, after, suite, config, detector, progress, "attack: changed")
    places = [i for i, row in enumerate(originals) if row.shows_concept]
    if not places:
        raise NotFoundError(
            f"None of the original's {len(originals)} pictures shows the concept, so there is nothing to get back: "
            f"use more --num-images, or another suite or detector."
        )
    return Target(
        [suite.concept[i] for i in places],
        [originals[i].image for i in places],
        [changed[i].shows_concept for i in places],
    )


class _Attack:
    """The four attacks on one changed model; each gives its outcome."""

    def __init__(
        self,
        store: Store,
        project: str,
        maker: PictureMaker,
        original: PictureMaker,
        config: EvaluateConfig,
        detector: Detector,
        progress: Progress,
    ) -> None:
        self.store, self.project, self.maker, self.original = store, project, maker, original
        self.config, self.detector, self.progress = config, detector, progress

    def reinversion(self, target: Target, suite: Suite, config: AttackConfig) -> Outcome:
        """Learn a new word for the original's pictures of the concept, on the changed model, and ask for it."""
        from hfi.config import InvertConfig
        from hfi.inversion import encode_prompts_with_tokens, invert
        from hfi.pipelines import encode_null_prompt, initial_latents, sample_latents

        learned_from = [self.store.load_image(sha256) for sha256 in target.images[:MAX_INVERTED]]
        invert_config = InvertConfig(
            placeholder="<attack>", num_concepts=1, num_vectors=config.num_vectors, batch_size=16,
            num_train_steps=config.num_train_steps, stopping="steps", seed=config.seed,
        )  # fmt: skip
        pipeline = self.maker.pipeline
        self.progress.start("attack: learn a word again", config.num_train_steps)
        (token,) = invert(
            pipeline, learned_from, [1.0] * len(learned_from), invert_config, on_step=follow_steps(self.progress)
        )
        self.progress.finish()
        seeds = [config.first_seed + NEW_SEEDS + i for i in range(len(target.prompts))]
        prompt = f"a {token.placeholder}"
        learned = sha256_text("".join(target.images[:MAX_INVERTED]))
        extra = {"attack": "reinversion", "steps": config.num_train_steps, "vectors": config.num_vectors}
        extra |= {"seed": config.seed, "learned_from": learned}

        def sample(places: list[int]) -> Any:
            return sample_latents(
                pipeline, encode_prompts_with_tokens(pipeline, [prompt] * len(places), [token]),
                encode_null_prompt(pipeline), initial_latents(pipeline, [seeds[i] for i in places]),
                self.config.num_inference_steps, self.config.guidance_scale, sampler=self.config.sampler,
            )  # fmt: skip

        params = [self._params(prompt, seed, extra) for seed in seeds]
        images, flags = self._drawn(params, sample, "attack: ask for the word")
        budget = f"{config.num_train_steps} steps, {len(learned_from)} pictures, {config.num_vectors} vectors"
        return Outcome(flags, budget, "Needs the weights and pictures of the concept.", _rows(params, images, flags))

    def prefix(self, target: Target, suite: Suite, config: AttackConfig) -> Outcome:
        """Search words to stand before each prompt; a hit of any try, or without an attack, is a success."""
        from hfi.evaluate.attacks import PrefixSearch, random_prefixes, search_prefixes

        search = PrefixSearch(
            config.num_prefix_tokens, config.num_iterations, config.learning_rate, config.num_tries, config.seed
        )
        prompts, size = [p.prompt for p in target.prompts], self.config.batch_size
        self.progress.start("attack: search prefixes", config.num_iterations * -(-len(prompts) // size))
        chunks = [
            search_prefixes(
                self.maker.pipeline, prompts[start : start + size],
                [self.store.load_image(sha256) for sha256 in target.images[start : start + size]],
                replace(search, seed=config.seed + start), lambda *_: self.progress.advance(),
            )
            for start in range(0, len(prompts), size)
        ]  # fmt: skip
        self.progress.finish()
        import torch

        found = [torch.cat(parts) for parts in zip(*chunks, strict=True)]
        flags, pictures = self._tried(target, found)
        control, _ = self._tried(target, random_prefixes(self.maker.pipeline, len(prompts), search))
        budget = (
            f"{config.num_prefix_tokens} tokens, {config.num_iterations} iterations, step {config.learning_rate:g}, "
            f"{len(found)} tries"
        )
        luck = sum(flag is True for flag in control)
        note = f"As many random prefixes succeed on {luck} of {len(control)}: what exceeds that is the search."
        return Outcome(flags, budget, note, pictures, control)

    def _tried(self, target: Target, tries: Sequence[Any]) -> tuple[Flags, list[dict[str, Any]]]:
        """For each prompt whether it shows the concept without a prefix or with one of the tries."""
        from hfi.evaluate.attacks import encode_with_prefixes, prefix_texts
        from hfi.pipelines import encode_null_prompt, initial_latents, sample_latents

        pipeline, outcomes, pictures = self.maker.pipeline, [target.flags], []
        for ids in tries:
            texts = prefix_texts(pipeline, ids)

            def sample(places: list[int], ids: Any = ids) -> Any:
                chosen = [target.prompts[i] for i in places]
                return sample_latents(
                    pipeline, encode_with_prefixes(pipeline, [p.prompt for p in chosen], ids[places]),
                    encode_null_prompt(pipeline), initial_latents(pipeline, [p.seed for p in chosen]),
                    self.config.num_inference_steps, self.config.guidance_scale, sampler=self.config.sampler,
                )  # fmt: skip

            params = [
                self._params(f"{text} {p.prompt}", p.seed, {"attack": "prefix", "prefix_ids": row.tolist()})
                for text, p, row in zip(texts, target.prompts, ids, strict=True)
            ]
            images, flags = self._drawn(params, sample, "attack: prefixes")
            outcomes.append(flags)
            pictures += _rows(params, images, flags)
        return [any_flagged(row) for row in zip(*outcomes, strict=True)], pictures

    def synonyms(self, target: Target, suite: Suite, config: AttackConfig) -> Outcome:
        """Ask in other words: the embedded world's synonyms, or the prompts of a file."""
        from hfi.generate import GenerationRequest

        if config.prompts:
            from hfi.cli_inputs import read_prompts

            texts = read_prompts(Path(config.prompts), [])
            requests = [GenerationRequest(text, config.first_seed + NEW_SEEDS + i) for i, text in enumerate(texts)]
        elif suite.group:
            from hfi.evaluate.paraphrase import paraphrase

            pairs = [(paraphrase(p, suite.group, i), p.seed) for i, p in enumerate(target.prompts)]
            requests = [GenerationRequest(text, seed) for text, seed in pairs if text]
        else:
            raise ConfigError("Other words are known for the embedded world only: give a text file with --prompts.")
        if not requests:
            raise ConfigError("None of the prompts has another word in the embedded world: give a file with --prompts.")
        records = self.maker.make(requests, self.config, "attack", self.progress, "attack: other words")
        images = [record.image_sha256 for record in records]
        flags = self._flags(images)
        rows = _rows([record.params for record in records], images, flags)
        return Outcome(flags, f"{len(requests)} prompts", "Needs nothing but the keyboard.", rows)

    def latents(self, target: Target, suite: Suite, config: AttackConfig) -> Outcome:
        """Redraw the original's pictures from inverted latents, without words; the original model is the control."""
        flags, rows = self._redrawn(self.maker, target)
        control, _ = self._redrawn(self.original, target)
        note = (
            "A limit, not an attack on a prompt: what the weights can still draw when words play no part. TINA also "
            "optimises the inversion; this does not. The control is the original model."
        )
        return Outcome(flags, f"{self.config.num_inference_steps} inversion steps a picture", note, rows, control)

    def _redrawn(self, maker: PictureMaker, target: Target) -> tuple[Flags, list[dict[str, Any]]]:
        from hfi.evaluate.attacks import find_start_noise, redraw

        steps = self.config.num_inference_steps

        def sample(places: list[int]) -> Any:
            pictures = [self.store.load_image(target.images[i]) for i in places]
            return redraw(maker.pipeline, find_start_noise(maker.pipeline, pictures, steps), steps)

        inverted = [
            self._params("", p.seed, {"attack": "latents", "inverted_from": sha256}, maker)
            for p, sha256 in zip(target.prompts, target.images, strict=True)
        ]
        params = [replace(p, scheduler=SCHEDULERS["ddim"]) for p in inverted]  # there and back by DDIM, whatever else
        images, flags = self._drawn(params, sample, "attack: inverted latents", maker)
        return flags, _rows(params, images, flags)

    def _params(
        self, prompt: str, seed: int, extra: dict[str, Any], maker: PictureMaker | None = None
    ) -> GenerationParams:
        from hfi.generate import GenerationRequest

        made = (maker or self.maker).params(GenerationRequest(prompt, seed), self.config, "attack")
        return replace(made, extra={**made.extra, **extra})

    def _drawn(
        self,
        params: Sequence[GenerationParams],
        sample: Callable[[list[int]], Any],
        stage: str,
        maker: PictureMaker | None = None,
    ) -> tuple[list[str], Flags]:
        """Pictures of these parameters: those stored are taken, the others sampled and stored batch by batch.

        Args:
            sample: gives latents for places in `params`.
        """
        from hfi.pipelines import decode_latents

        found = {i: self.store.find_generation(self.project, p) for i, p in enumerate(params)}
        images = {i: record.image_sha256 for i, record in found.items() if record is not None}
        missing = [i for i in found if i not in images]
        self.progress.start(stage, len(params))
        self.progress.advance(len(images))
        for start in range(0, len(missing), self.config.batch_size):
            places = missing[start : start + self.config.batch_size]
            pictures: list[Image.Image] = decode_latents((maker or self.maker).pipeline, sample(places))
            shas = [self.store.add_image(picture).sha256 for picture in pictures]
            self.store.add_generations(self.project, [(sha, params[i]) for sha, i in zip(shas, places, strict=True)])
            images |= dict(zip(places, shas, strict=True))
            self.progress.advance(len(places))
        self.progress.finish()
        ordered = [images[i] for i in range(len(params))]
        return ordered, self._flags(ordered)

    def _flags(self, images: Sequence[str]) -> Flags:
        readings = cached_readings(self.store, self.detector, images)
        return [readings[sha256].is_flagged(self.detector.spec) for sha256 in images]


def _rows(params: Sequence[GenerationParams], images: Sequence[str], flags: Flags) -> list[dict[str, Any]]:
    """Pictures of an attack as an evaluation lists them."""
    return [
        asdict(JudgedPicture("attack", p.prompt, p.seed, image, flag, None, None))
        for p, image, flag in zip(params, images, flags, strict=True)
    ]


def _summary(run: Run) -> str:
    figures = run.metrics

    def text(name: str) -> str:
        rate = figures[name]
        return f"{100 * rate['rate']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"

    control = f" (control {text('control')})" if "control" in figures else ""
    return (
        f"{figures['title']}: {text('before_attack')} -> {text('after_attack')}{control}, n = "
        f"{figures['after_attack']['n']}; {figures['budget']}."
    )
