"""Holding back while sampling: SLD is diffusers' own, formula by formula; a guard acts alike whatever the batch."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.deprecated.stable_diffusion_safe import SafetyConfig, StableDiffusionPipelineSafe

from hfi import guidance, pipelines
from hfi.config import GenerateConfig
from hfi.errors import ConfigError, InvalidInputError, UnknownTokenError
from hfi.generate import GenerationRequest, generate
from hfi.guidance import SLD_LEVELS, SLDSettings
from hfi.inversion import ConceptToken
from tests import tiny

PROMPTS = ["a photo of a bomb", "a cat and a dog on the red background"]
CONCEPT = "a weapon and an axe"
NUM_STEPS = 6
TOKEN = ConceptToken("<concept>", torch.full((2, tiny.TEXT_WIDTH), 0.05))


def loud(pipeline: Any) -> Any:
    """Random cross-attention hardly looks at the prompt; this makes prompts differ as much as trained ones do."""
    with torch.no_grad():
        for name, parameter in pipeline.unet.named_parameters():
            if "attn2.to_out" in name or "attn2.to_v" in name:
                parameter.mul_(6)
    return pipeline


@pytest.fixture(scope="module")
def safe_pipeline() -> StableDiffusionPipelineSafe:
    """Diffusers' pipeline with the weights of `tiny.build_pipeline()` made loud."""
    pipeline = loud(tiny.build_pipeline())
    parts = {name: part for name, part in pipeline.components.items() if name != "image_encoder"}
    safe = StableDiffusionPipelineSafe(**parts, requires_safety_checker=False)
    safe.set_progress_bar_config(disable=True)
    safe.safety_concept = CONCEPT
    return safe


def reference_latents(
    safe: StableDiffusionPipelineSafe, start: torch.Tensor, settings: SLDSettings
) -> list[torch.Tensor]:
    """The latents after each step of diffusers' pipeline."""
    seen: list[torch.Tensor] = []
    safe(
        PROMPTS,
        latents=start,
        num_inference_steps=NUM_STEPS,
        guidance_scale=7.5,
        output_type="latent",
        callback=lambda _step, _timestep, latents: seen.append(latents.clone()),
        sld_warmup_steps=settings.warmup_steps,
        sld_guidance_scale=settings.guidance_scale,
        sld_threshold=settings.threshold,
        sld_momentum_scale=settings.momentum_scale,
        sld_mom_beta=settings.momentum_beta,
    )
    return seen


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("level", list(SLD_LEVELS))
def test_sld_equals_diffusers_on_the_same_latents(
    safe_pipeline: StableDiffusionPipelineSafe, monkeypatch: pytest.MonkeyPatch, prediction_type: str, level: str
) -> None:
    # six steps are over before the published warm-ups are, so the warm-up is shorter here
    settings = dataclasses.replace(SLD_LEVELS[level], warmup_steps=min(2, SLD_LEVELS[level].warmup_steps))
    monkeypatch.setattr(safe_pipeline, "scheduler", tiny.build_scheduler(prediction_type))
    pipeline = loud(tiny.build_pipeline(prediction_type=prediction_type))
    start = pipelines.initial_latents(pipeline, range(2))
    expected = reference_latents(safe_pipeline, start, settings)
    inputs = (
        pipelines.encode_prompts(pipeline, PROMPTS),
        pipelines.encode_null_prompt(pipeline),
        pipelines.encode_prompts(pipeline, [CONCEPT]),
        start,
        NUM_STEPS,
        7.5,
    )
    seen: list[torch.Tensor] = []
    guidance.sample_latents_sld(
        pipeline, *inputs, settings, on_step=lambda _done, latents: seen.append(latents.clone())
    )
    assert len(seen) == len(expected) == NUM_STEPS
    assert max(float((ours - theirs).abs().max()) for ours, theirs in zip(seen, expected, strict=True)) < 1e-5
    plain = pipelines.sample_latents(pipeline, *inputs[:2], *inputs[3:])
    assert float((seen[-1] - plain).abs().max()) > 1e-2


def test_levels_are_those_of_diffusers_but_for_the_authors_weak_scale() -> None:
    published = {
        "weak-diffusers": SafetyConfig.WEAK, "medium": SafetyConfig.MEDIUM,
        "strong": SafetyConfig.STRONG, "max": SafetyConfig.MAX,
    }  # fmt: skip
    for level, values in published.items():
        ours = vars(SLD_LEVELS[level])
        assert [values[f"sld_{n}"] for n in ("warmup_steps", "guidance_scale", "threshold", "momentum_scale")] == [
            ours[n] for n in ("warmup_steps", "guidance_scale", "threshold", "momentum_scale")
        ]
        assert values["sld_mom_beta"] == ours["momentum_beta"]
    assert SLD_LEVELS["weak"].guidance_scale == 200


def element(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1), value)


def test_sld_formulas_by_hand() -> None:
    nearness = guidance.sld_nearness(element(0.1), element(0.3), scale=2.0, threshold=0.01)
    assert float(nearness) == pytest.approx(0.4)  # |0.1 - 0.3| * 2
    assert float(guidance.sld_nearness(element(0.3), element(0.1), 2.0, 0.01)) == 0.0  # 0.2 >= lambda
    assert float(guidance.sld_nearness(element(0.1), element(0.9), 1000.0, 0.01)) == 1.0
    safety = guidance.sld_safety(nearness, element(0.3), element(0.05), element(0.2), momentum_scale=0.5)
    assert float(safety) == pytest.approx(0.4 * 0.25 + 0.5 * 0.2)
    assert float(guidance.sld_momentum(element(0.2), safety, 0.7)) == pytest.approx(0.7 * 0.2 + 0.3 * 0.2)
    assert float(guidance.sld_noise(element(0.05), element(0.1), safety, 3.0)) == pytest.approx(0.05 + 3 * (0.05 - 0.2))


def test_sld_that_counts_nothing_as_near_is_plain_guidance(pipeline: StableDiffusionPipeline) -> None:
    inputs = (
        pipelines.encode_prompts(pipeline, PROMPTS), pipelines.encode_null_prompt(pipeline),
    )  # fmt: skip
    latents = pipelines.initial_latents(pipeline, range(2))
    concept = pipelines.encode_prompts(pipeline, [CONCEPT])
    held = guidance.sample_latents_sld(pipeline, *inputs, concept, latents, 3, 3.0, SLDSettings(0, 0.0, 1.0, 0.0, 0.0))
    assert torch.allclose(held, pipelines.sample_latents(pipeline, *inputs, latents, 3, 3.0), atol=1e-6)


CONFIG = GenerateConfig(num_inference_steps=3, guidance_scale=3.0, batch_size=2, sld_warmup_steps=1)
REQUESTS = [
    GenerationRequest("a photo of a bomb", 0),
    GenerationRequest("a cat", 1, negative_prompt="a red dog"),
    GenerationRequest("an axe", 2),
]


def guarded(pipeline: Any, config: GenerateConfig, requests: list[GenerationRequest], tokens: Any = ()) -> np.ndarray:
    guard = guidance.build_guard(config, tokens)
    return np.stack([np.asarray(image, dtype=int) for _, image in generate(pipeline, requests, config, guard=guard)])


@pytest.mark.parametrize(
    ("family", "kind", "has_token"),
    [
        ("sd", "negative", True),
        ("sd", "sld", False),
        ("v", "sld", True),
        ("xl", "negative", False),
        ("xl", "sld", True),
    ],
)
def test_a_guarded_request_gives_the_same_picture_in_any_batch(family: str, kind: str, has_token: bool) -> None:
    built = {"sd": tiny.build_pipeline, "v": lambda: tiny.build_pipeline(prediction_type="v_prediction")}
    pipeline = loud(tiny.build_pipeline_xl() if family == "xl" else built[family]())
    width = pipelines.embedding_width(pipeline)
    tokens = [ConceptToken("<concept>", torch.full((2, width), 0.05))] if has_token else []
    config = CONFIG.model_copy(update={"guard": kind, "guard_text": "" if has_token else CONCEPT})
    together = guarded(pipeline, config, REQUESTS, tokens)
    alone = guarded(pipeline, config.model_copy(update={"batch_size": 1}), REQUESTS, tokens)
    assert np.abs(together - alone).max() <= 1
    plain = guarded(pipeline, CONFIG, REQUESTS)
    assert all(np.abs(a - b).max() > 1 for a, b in zip(together, plain, strict=True))


def test_a_negative_guard_is_a_negative_prompt(pipeline: StableDiffusionPipeline) -> None:
    guard = CONFIG.model_copy(update={"guard": "negative", "guard_text": CONCEPT})
    asked = [GenerationRequest(request.prompt, request.seed, CONCEPT) for request in REQUESTS[::2]]
    assert np.abs(guarded(pipeline, guard, REQUESTS[::2]) - guarded(pipeline, CONFIG, asked)).max() <= 1
    both = [GenerationRequest("a cat", 1, f"a red dog, {CONCEPT}")]
    assert np.abs(guarded(pipeline, guard, REQUESTS[1:2]) - guarded(pipeline, CONFIG, both)).max() <= 1


def test_build_guard_takes_own_values_over_the_levels() -> None:
    config = GenerateConfig(guard="sld", guard_text="x", sld_level="strong", sld_threshold=0.5)
    guard = guidance.build_guard(config)
    assert guard is not None and guard.sld == SLDSettings(7, 2000, 0.5, 0.5, 0.7)
    assert guard.provenance() == {"guard_text": "x", "sld": vars(guard.sld)}
    with_token = guidance.build_guard(GenerateConfig(guard="negative"), [TOKEN])
    assert with_token is not None and with_token.text == "<concept>"
    assert set(with_token.provenance()) == {"guard_text", "guard_tokens"}
    assert guidance.build_guard(GenerateConfig()) is None


def test_guards_refuse_what_cannot_act(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(ConfigError, match="needs something to hold back"):
        guidance.build_guard(GenerateConfig(guard="sld", guard_text="  "))
    useless = CONFIG.model_copy(update={"guard": "negative", "guard_text": "a cat", "guidance_scale": 1.0})
    with pytest.raises(InvalidInputError, match="does nothing"):
        guarded(pipeline, useless, REQUESTS)
    long = CONFIG.model_copy(update={"guard": "sld", "guard_text": "a cat " * 20})
    with pytest.raises(InvalidInputError, match="takes 42 places, but this model reads 16"):
        guarded(pipeline, long, REQUESTS)
    other = ConceptToken("<concept>", torch.zeros(1, tiny.TEXT_WIDTH + 1))
    with pytest.raises(UnknownTokenError, match="text encoder"):
        guarded(pipeline, CONFIG.model_copy(update={"guard": "sld"}), REQUESTS, [other])
