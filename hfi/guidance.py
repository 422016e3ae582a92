"""Steering without training: what is held back while sampling, by words or by concept tokens.

    symbol   variable         meaning
    e0       null_pred        prediction for the empty (or negative) prompt
    ep       cond_pred        prediction for the prompt
    eS       concept_pred     prediction for what is held back
    mu       nearness         how fully an element counts as near to the concept, in [0, 1]
    gamma    safety           what is taken out of the guidance
    nu       momentum         moving average of gamma; it builds up during the warm-up too
    s_g      guidance_scale   classifier-free guidance

    mu    = min(1, s_S |ep - eS|)  where ep - eS < lambda, else 0        (6)
    gamma = mu (eS - e0) + s_m nu                                        (4), (7)
    nu   <- beta_m nu + (1 - beta_m) gamma                               (8)
    e     = e0 + s_g ((ep - e0) - gamma)   from step delta on            (3)

Source: Safe Latent Diffusion, arXiv 2211.05105. A prediction is whatever the model predicts: noise, or for v-prediction
models velocity, as in diffusers' pipeline, which the tests compare with. The negative prompt is folklore.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from hfi.config import GenerateConfig
from hfi.errors import ConfigError, InvalidInputError
from hfi.inversion.tokens import ConceptToken, encode_prompts_with_tokens
from hfi.pipelines import Guide, Pipeline, guided_noise, sample_guided, sample_latents

Prediction = Float[Tensor, "batch channels height width"]


@dataclass(frozen=True)
class SLDSettings:
    """The constants of Safe Latent Diffusion.

    Attributes:
        warmup_steps: delta, sampler steps before anything is held back.
        guidance_scale: s_S; 0 holds nothing back.
        threshold: lambda.
        momentum_scale: s_m in [0, 1].
        momentum_beta: beta_m in [0, 1).
    """

    warmup_steps: int
    guidance_scale: float
    threshold: float
    momentum_scale: float
    momentum_beta: float


# arXiv 2211.05105, table of hyperparameters; diffusers writes 20 where the authors write 200.
SLD_LEVELS: dict[str, SLDSettings] = {
    "weak": SLDSettings(15, 200, 0.0, 0.0, 0.0),
    "weak-diffusers": SLDSettings(15, 20, 0.0, 0.0, 0.0),
    "medium": SLDSettings(10, 1000, 0.01, 0.3, 0.4),
    "strong": SLDSettings(7, 2000, 0.025, 0.5, 0.7),
    "max": SLDSettings(0, 5000, 1.0, 0.5, 0.7),
}


# ---------------------------------------- formulas


def sld_nearness(cond_pred: Prediction, concept_pred: Prediction, scale: float, threshold: float) -> Prediction:
    """mu = min(1, s_S |ep - eS|) where ep - eS < lambda, else 0. Source: arXiv 2211.05105, equation 6."""
    difference = cond_pred - concept_pred
    nearness = (difference.abs() * scale).clamp(max=1.0)
    return torch.where(difference >= threshold, torch.zeros_like(nearness), nearness)


def sld_safety(
    nearness: Prediction,
    concept_pred: Prediction,
    null_pred: Prediction,
    momentum: Prediction,
    momentum_scale: float,
) -> Prediction:
    """gamma = mu (eS - e0) + s_m nu. Source: arXiv 2211.05105, equations 4 and 7."""
    return nearness * (concept_pred - null_pred) + momentum_scale * momentum


def sld_momentum(momentum: Prediction, safety: Prediction, beta: float) -> Prediction:
    """nu <- beta_m nu + (1 - beta_m) gamma. Source: arXiv 2211.05105, equation 8."""
    return beta * momentum + (1 - beta) * safety


def sld_noise(null_pred: Prediction, cond_pred: Prediction, safety: Prediction, guidance_scale: float) -> Prediction:
    """e0 + s_g ((ep - e0) - gamma); without gamma it is plain guidance. Source: arXiv 2211.05105, equation 3."""
    return null_pred + guidance_scale * ((cond_pred - null_pred) - safety)


def sld_guide(settings: SLDSettings, guidance_scale: float) -> Guide:
    """What to follow at each step of one sampling, given predictions for (null, prompt, concept)."""
    momentum: list[Tensor] = []

    def guide(step_index: int, predictions: tuple[Tensor, ...]) -> Tensor:
        null_pred, cond_pred, concept_pred = predictions
        before = momentum.pop() if momentum else torch.zeros_like(cond_pred)
        nearness = sld_nearness(cond_pred, concept_pred, settings.guidance_scale, settings.threshold)
        safety = sld_safety(nearness, concept_pred, null_pred, before, settings.momentum_scale)
        momentum.append(sld_momentum(before, safety, settings.momentum_beta))
        if step_index < settings.warmup_steps:
            return guided_noise(null_pred, cond_pred, guidance_scale)
        return sld_noise(null_pred, cond_pred, safety, guidance_scale)

    return guide


def sample_latents_sld(
    pipeline: Pipeline,
    prompt_embeds: Float[Tensor, "batch rows dim"],
    null_embeds: Float[Tensor, "nulls rows dim"],
    concept_embeds: Float[Tensor, "concepts rows dim"],
    latents: Float[Tensor, "batch channels height width"],
    num_inference_steps: int,
    guidance_scale: float,
    settings: SLDSettings,
    **options: Any,
) -> Float[Tensor, "batch channels height width"]:
    """As `hfi.pipelines.sample_latents`, with a concept held back by SLD; one UNet call of three parts a step.

    Args:
        concept_embeds: What is held back: one row for all, or one for each picture.
        settings: See SLD_LEVELS.
        options: As those of `hfi.pipelines.sample_guided`.
    """
    guide = sld_guide(settings, guidance_scale)
    conditions = [null_embeds, prompt_embeds, concept_embeds]
    return sample_guided(pipeline, conditions, latents, num_inference_steps, guide, **options)


# ---------------------------------------- a guard: how, and what


@dataclass(frozen=True)
class Guard:
    """How a concept is held back, and which.

    Attributes:
        kind: `negative` (a negative prompt) or `sld`.
        text: The concept in words; placeholders of `tokens` may stand in it.
        tokens: Concept tokens.
        sld: Constants of SLD; unused for `negative`.
    """

    kind: Literal["negative", "sld"]
    text: str
    tokens: tuple[ConceptToken, ...] = ()
    sld: SLDSettings = field(default_factory=lambda: SLD_LEVELS["medium"])

    def provenance(self) -> dict[str, Any]:
        """Everything that decides what is held back, as plain JSON."""
        words: dict[str, Any] = {"guard_text": self.text}
        if self.tokens:
            words["guard_tokens"] = {token.placeholder: _rows_sha256(token) for token in self.tokens}
        return words | ({"sld": vars(self.sld)} if self.kind == "sld" else {})


def build_guard(config: GenerateConfig, tokens: Sequence[ConceptToken] = ()) -> Guard | None:
    """The guard that a configuration asks for; None if it asks for none.

    Args:
        tokens: Concept tokens that `config.guard_tokens` stands for. Without words of its own, the guard's text is
            their placeholders one after the other.

    Raises:
        ConfigError: There are neither words nor tokens to hold back.
    """
    if config.guard == "none":
        return None
    text = config.guard_text.strip() or " ".join(token.placeholder for token in tokens)
    if not text:
        raise ConfigError(
            f"--guard {config.guard} needs something to hold back: give --guard-text 'a weapon' or "
            f"--guard-tokens latest."
        )
    level = SLD_LEVELS[config.sld_level]
    own = {name: getattr(config, f"sld_{name}") for name in vars(level)}
    given = {name: value for name, value in own.items() if value is not None}
    return Guard(config.guard, text, tuple(tokens), SLDSettings(**{**vars(level), **given}))


def encode_guard(
    pipeline: Pipeline, guard: Guard, negative_prompts: Sequence[str] = ("",)
) -> Float[Tensor, "prompts rows dim"]:
    """Embeddings of what is held back; for a negative guard behind each request's own negative prompt.

    Raises:
        InvalidInputError: The text is longer than the model reads, so that a part would go unheeded.
        UnknownTokenError: A token was learned for another text encoder.
    """
    is_negative = guard.kind == "negative"
    texts = [f"{own}, {guard.text}" if own and is_negative else guard.text for own in negative_prompts]
    spread = guard.text
    for token in guard.tokens:  # a token takes as many places as it has rows; any word of one place stands for one
        spread = spread.replace(token.placeholder, " a" * len(token.learned_embeds) + " ")
    ids = pipeline.tokenizer(spread).input_ids
    if len(ids) > pipeline.tokenizer.model_max_length:
        raise InvalidInputError(
            f"What is held back takes {len(ids)} places, but this model reads {pipeline.tokenizer.model_max_length}: "
            f"use fewer words or fewer concept tokens."
        )
    return encode_prompts_with_tokens(pipeline, texts, guard.tokens)


def sample_guarded(
    pipeline: Pipeline,
    prompt_embeds: Float[Tensor, "batch rows dim"],
    null_embeds: Float[Tensor, "nulls rows dim"],
    latents: Float[Tensor, "batch channels height width"],
    num_inference_steps: int,
    guidance_scale: float,
    guard: Guard,
    negative_prompts: Sequence[str] = ("",),
    **options: Any,
) -> Float[Tensor, "batch channels height width"]:
    """As `hfi.pipelines.sample_latents`, with a guard.

    Args:
        negative_prompts: The requests' own negative prompts, one for all or one for each; `null_embeds` are theirs.

    Raises:
        InvalidInputError: A negative guard cannot act, because there is no guidance to turn around.
    """
    concept_embeds = encode_guard(pipeline, guard, negative_prompts)
    if guard.kind == "sld":
        return sample_latents_sld(
            pipeline, prompt_embeds, null_embeds, concept_embeds, latents, num_inference_steps, guidance_scale,
            guard.sld, **options,
        )  # fmt: skip
    if guidance_scale == 1.0:
        raise InvalidInputError(
            "A negative guard does nothing at --guidance-scale 1.0: raise it above 1, or use --guard sld."
        )
    return sample_latents(
        pipeline, prompt_embeds, concept_embeds, latents, num_inference_steps, guidance_scale, **options
    )


def _rows_sha256(token: ConceptToken) -> str:
    rows = token.learned_embeds.detach().cpu().float().contiguous().numpy()
    return hashlib.sha256(rows.tobytes()).hexdigest()
