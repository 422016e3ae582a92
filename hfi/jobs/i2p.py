"""The I2P test bed on one model: ten pictures of each prompt from its own seed, read by all detectors, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfi.config import I2PConfig, SamplerConfig
from hfi.errors import ConfigError
from hfi.evaluate.i2p import (
    I2PFigures,
    I2PPrompt,
    any_flagged,
    measure_i2p,
    read_i2p,
    sample_cost,
    sample_prompts,
    subsets,
)
from hfi.evaluate.protocol import Protocol, hash_prompts
from hfi.jobs.evaluate import cached_readings, load_named_detector, write_result_once
from hfi.jobs.pictures import PictureMaker, default_size_px
from hfi.jobs.runs import StageResult, find_finished, recorded_run, run_settings
from hfi.progress import Progress
from storage import Store
from storage.records import GenerationParams, Run

if TYPE_CHECKING:
    from hfi.evaluate.detectors import Detector

I2P_ARTIFACT = "i2p"
FIXED_GUIDANCE = 7.5
KNOWN_DETECTORS = ("q16", "nudenet", "opennsfw", "score")


def run_i2p(store: Store, config: I2PConfig, project: str, progress: Progress) -> StageResult:
    """Inappropriate probability and expected maximum: overall, for each category, for the hard prompts.

    Args:
        store: pictures and readings are kept there, so that the run goes on at the next picture.
        config: model, prompts, sample, detectors.
        project: under which pictures are recorded.
        progress: told about every picture.

    Raises:
        PromptFileError: the file is not I2P's.
        ConfigError, ModelFolderError: a detector is unknown, or its package or weights are missing.
    """
    everything = read_i2p(Path(config.prompts))
    prompts = sample_prompts(everything, config.sample, config.seed)
    detectors = [load_named_detector(store, name, config, project) for name in _detector_names(config)]
    maker = PictureMaker(store, project, config.model, config.device)
    protocol = _protocol(config, prompts, detectors, maker)
    settings = run_settings(config, project, model_sha256=maker.model_sha256, protocol=protocol.sha256)
    done = find_finished(store, "i2p", settings)
    if done is not None:
        return StageResult(_summary(done), done, dict(done.metrics))
    with recorded_run(store, "i2p", settings) as work:
        images = _make_pictures(store, project, maker, config, prompts, progress)
        flags, unread = _flags(store, detectors, images)
        cost = sample_cost(len(everything), len(prompts), config.confidence)
        work.metrics.update(_figures(prompts, flags, config), sample=len(prompts), total=len(everything), cost=cost)
        work.metrics.update(unread=unread, protocol=protocol.sha256, model_sha256=maker.model_sha256)
        rows = [
            {"row": p.row, "prompt": p.prompt, "seed": p.seed, "images": shas, "flags": found}
            for p, shas, found in zip(prompts, images, flags, strict=True)
        ]
        content = {"protocol": protocol, "models": {"model": maker.model_sha256}, "pictures": {"i2p": rows}}
        write_result_once(store, work.run, I2P_ARTIFACT, {**content, "figures": work.metrics})
    return StageResult(_summary(work.run), work.run, dict(work.metrics))


def _detector_names(config: I2PConfig) -> list[str]:
    names = [name.strip() for name in config.detectors.split(",") if name.strip()]
    unknown = [name for name in names if name not in KNOWN_DETECTORS]
    if unknown or not names:
        raise ConfigError(
            f"--detectors is {config.detectors!r}, but must be of {', '.join(KNOWN_DETECTORS)}, by commas."
        )
    return names


def _protocol(
    config: I2PConfig, prompts: Sequence[I2PPrompt], detectors: Sequence[Detector], maker: PictureMaker
) -> Protocol:
    """Seeds and, where they are the prompts' own, guidances are part of the prompts' hash."""
    size_px = default_size_px(maker.folder)
    return Protocol(
        name="i2p",
        suite=f"I2P, {config.images_per_prompt} pictures a prompt, guidance {config.guidance}",
        prompts_sha256=hash_prompts([asdict(p) for p in prompts]),
        num_concept_images=len(prompts) * config.images_per_prompt,
        num_other_images=0,
        first_seed=0,
        num_inference_steps=config.num_inference_steps,
        guidance_scale=FIXED_GUIDANCE,
        width_px=size_px,
        height_px=size_px,
        detectors=tuple(detector.spec for detector in detectors),
        interval="bootstrap over prompts",
        confidence=config.confidence,
    )


def _make_pictures(
    store: Store,
    project: str,
    maker: PictureMaker,
    config: I2PConfig,
    prompts: Sequence[I2PPrompt],
    progress: Progress,
) -> list[list[str]]:
    """Hashes of each prompt's pictures; those stored by an earlier start are not made again."""
    count = config.images_per_prompt
    progress.start("i2p: pictures", len(prompts) * count)
    images = []
    for prompt in prompts:
        params = [_params(maker, config, prompt, k) for k in range(count)]
        found = [store.find_generation(project, p) for p in params]
        if any(record is None for record in found):
            missing = [k for k, record in enumerate(found) if record is None]
            made = _sample(store, project, maker, config, prompt, params, missing)
            images.append([record.image_sha256 if record else made[k] for k, record in enumerate(found)])
        else:
            images.append([record.image_sha256 for record in found if record])
        progress.advance(count)
    progress.finish()
    return images


def _params(maker: PictureMaker, config: I2PConfig, prompt: I2PPrompt, index: int) -> GenerationParams:
    """One of a prompt's pictures: the seed draws the noise of all of them at once, so the place among them counts."""
    from hfi.generate import GenerationRequest

    guidance = max(prompt.guidance_scale, 1.0) if config.guidance == "own" else FIXED_GUIDANCE
    sampler = SamplerConfig(num_inference_steps=config.num_inference_steps, guidance_scale=guidance)
    params = maker.params(GenerationRequest(prompt.prompt, prompt.seed), sampler, "i2p")
    return replace(params, extra={**params.extra, "place": index, "of": config.images_per_prompt})


def _sample(
    store: Store,
    project: str,
    maker: PictureMaker,
    config: I2PConfig,
    prompt: I2PPrompt,
    params: Sequence[GenerationParams],
    missing: Sequence[int],
) -> dict[int, str]:
    import torch

    from hfi.pipelines import decode_latents, encode_null_prompt, encode_prompts, initial_latents, sample_latents

    pipeline = maker.pipeline
    shape = (config.images_per_prompt, *initial_latents(pipeline, [0]).shape[1:])
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(prompt.seed)).to(pipeline.unet.device)
    made: dict[int, str] = {}
    for start in range(0, len(missing), config.batch_size):
        places = list(missing[start : start + config.batch_size])
        latents = sample_latents(
            pipeline,
            encode_prompts(pipeline, [prompt.prompt] * len(places)),
            encode_null_prompt(pipeline),
            noise[places] * pipeline.scheduler.init_noise_sigma,
            config.num_inference_steps,
            params[0].guidance_scale,
        )
        shas = [store.add_image(picture).sha256 for picture in decode_latents(pipeline, latents)]
        store.add_generations(project, [(sha, params[k]) for sha, k in zip(shas, places, strict=True)])
        made |= dict(zip(places, shas, strict=True))
    return made


def _flags(
    store: Store, detectors: Sequence[Detector], images: Sequence[Sequence[str]]
) -> tuple[list[list[bool | None]], dict[str, int]]:
    """Verdict of every picture, and how many each detector could not read."""
    unique = list(dict.fromkeys(sha256 for row in images for sha256 in row))
    readings = {d.spec.name: (d.spec, cached_readings(store, d, unique)) for d in detectors}
    unread = {name: sum(bool(r.failure) for r in found.values()) for name, (_, found) in readings.items()}
    flags = [
        [any_flagged([found[sha256].is_flagged(spec) for spec, found in readings.values()]) for sha256 in row]
        for row in images
    ]
    return flags, unread


def _figures(prompts: Sequence[I2PPrompt], flags: Sequence[Sequence[bool | None]], config: I2PConfig) -> dict[str, Any]:
    sets = {}
    for name, places in subsets(prompts).items():
        chosen = [flags[place] for place in places]
        if any(flag is not None for row in chosen for flag in row):
            sets[name] = _as_json(measure_i2p(chosen, config.confidence, config.seed))
    if "overall" not in sets:
        measure_i2p(flags)  # raises the error that says so
    return {"sets": sets}


def _as_json(figures: I2PFigures) -> dict[str, Any]:
    p = figures.probability
    return {
        "probability": {"rate": p.estimate, "low": p.low, "high": p.high, "n": p.n},
        "expected_maximum": {"mean": figures.maximum, "sd": figures.maximum_sd},
        "images": figures.num_images,
        "unread": figures.num_unread,
    }


def _summary(run: Run) -> str:
    figures = run.metrics
    lines = []
    for name, found in figures["sets"].items():
        p, m = found["probability"], found["expected_maximum"]
        rate = f"{100 * p['rate']:5.1f} % [{100 * p['low']:.1f}, {100 * p['high']:.1f}]"
        lines.append(f"{name:<17} {rate:<24} maximum {m['mean']:.2f} ± {m['sd']:.2f}  prompts {p['n']}")
    if figures["cost"]:
        lines.append(
            f"A sample of {figures['sample']} of {figures['total']} prompts costs at worst "
            f"± {100 * figures['cost']:.1f} points overall."
        )
    if any(figures["unread"].values()):
        lines.append(f"Not readable, and in no number: {figures['unread']}.")
    return "\n".join(lines)
