"""Self-distillation (SDD): the student's prediction for a concept becomes the original's prediction without it.

    symbol   variable         meaning
    theta    state.student    trained copy; only the chosen weights change
    theta~   state.average    teacher: moving average of the student; deployed
    theta*   pipeline.unet    reference: the frozen original
    c, c0    target, anchor   prompt to erase; what it is mapped to (the empty prompt, or the rest of the prompt)
    c_r      retain           prompts whose prediction must not change; a part of them is the empty prompt
    eta      negative_guidance

    L = || eps_theta(z_t, c) - sg(T) ||^2 + retain_weight || eps_theta(z'_t, c_r) - sg(eps_theta*(z'_t, c_r)) ||^2
    T = eps_theta*(z_t, c0) - eta (eps_theta*(z_t, c) - eps_theta*(z_t, c0))

Sources: SDD, arXiv 2307.05977 (eta = 0, z_t from the teacher's sampling); HFI, arXiv 2407.21032 (Beta(3, 3), EMA
teacher); eta is ESD's, arXiv 2303.07345. Noised flagged pictures, the retain term, the frozen reference and
the bank are ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from hfi.config import EraseConfig
from hfi.erase.anchors import concept_words, without_concept
from hfi.erase.bank import Points, bank_rows, noised_points, predict_in_chunks, rollout_points
from hfi.erase.training import (
    LOG_EVERY_N_STEPS,
    EraseResult,
    TrainingState,
    averaged_unet,
    check_finite,
    fingerprint,
    peak_memory_mib,
    restore_checkpoint_,
    save_checkpoint,
    start_training,
    take_step_,
)
from hfi.errors import InvalidInputError
from hfi.inversion.tokens import ConceptToken, encode_prompts_with_tokens
from hfi.pipelines import Pipeline, encode_images, encode_null_prompt, predict_noise

BANK_BATCHES = 16  # batches of points made at once
BANK_PASSES = 4  # times each point is used; so the original runs forward on a quarter of what it would otherwise
NULL_SHARE = 0.125  # part of the retain points whose prompt is the empty one, so that guidance keeps its footing

# Called after each step with (num_steps_done, num_train_steps).
OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class _Side:
    """Prompts of one term of the loss, with latents of a picture for each, or without (then points are sampled)."""

    prompts: Sequence[str]
    embeds: Float[Tensor, "prompts tokens dim"]
    latents: Float[Tensor, "pictures channels height width"] | None


def sdd_target(
    anchor_pred: Float[Tensor, "batch channels height width"],
    concept_pred: Float[Tensor, "batch channels height width"],
    negative_guidance: float,
) -> Float[Tensor, "batch channels height width"]:
    """T = anchor - eta (concept - anchor); eta = 0 is SDD's target. Sources: arXiv 2307.05977, 2303.07345 eq. 7."""
    return anchor_pred - negative_guidance * (concept_pred - anchor_pred)


def erase_sdd(
    pipeline: Pipeline,
    target_prompts: Sequence[str],
    config: EraseConfig,
    *,
    images: Sequence[Image.Image] | None = None,
    latents: Float[Tensor, "targets channels height width"] | None = None,
    anchors: Sequence[str] | None = None,
    tokens: Sequence[ConceptToken] = (),
    retain_prompts: Sequence[str] = (),
    retain_images: Sequence[Image.Image] | None = None,
    retain_latents: Float[Tensor, "retained channels height width"] | None = None,
    on_step: OnStep | None = None,
    checkpoint_dir: str | Path | None = None,
) -> EraseResult:
    """Erase prompts from a copy of the pipeline's UNet. The pipeline itself is left as it was, bit for bit.

    Args:
        target_prompts: What to erase. With pictures: the prompt of each (repeat pictures to pair one with several).
        config: Method, points, trainable weights, steps, rates, seed.
        images: Flagged pictures, one for each target prompt; or give their `latents`. Needed for `latents="noised"`.
        anchors: What each target prompt is mapped to; None = as `config.anchor` says.
        tokens: Concept tokens whose placeholders occur in prompts.
        retain_prompts: Prompts whose prediction must not change; with `retain_weight > 0` and none given, only the
            empty prompt is retained.
        retain_images: Pictures of the retain prompts, one for each; or their `retain_latents`. Without them the retain
            points are sampled from the original.
        on_step: Called after each step with (num_steps_done, num_train_steps).
        checkpoint_dir: Where checkpoints are kept. A run with the same inputs goes on from the last one, to the same
            weights as an uninterrupted run.

    Raises:
        InvalidInputError: Prompts are missing, or pictures and prompts differ in number.
        TrainingDivergedError: The loss is not finite; nothing of that step was kept.
    """
    started = time.monotonic()
    latents = _latents_of(pipeline, images, latents, target_prompts, "target")
    retain_latents = _latents_of(pipeline, retain_images, retain_latents, retain_prompts, "retain")
    _check_inputs(target_prompts, latents, anchors, config)
    anchor_prompts = list(anchors) if anchors is not None else _anchors(target_prompts, retain_prompts, tokens, config)
    target = _Side(target_prompts, encode_prompts_with_tokens(pipeline, target_prompts, tokens), latents)
    anchor_embeds = encode_prompts_with_tokens(pipeline, anchor_prompts, tokens)
    retain = _retain_side(pipeline, retain_prompts, retain_latents, tokens, target)
    state = start_training(pipeline.unet, config)
    state.student.to(memory_format=torch.channels_last)
    given = [tensor for tensor in (latents, retain_latents, target.embeds) if tensor is not None]
    run = fingerprint(config, [target_prompts, anchor_prompts, retain_prompts], given)
    folder = Path(checkpoint_dir) if checkpoint_dir is not None else None
    first_step = state.num_steps_done if folder is not None and restore_checkpoint_(state, folder, run) else 0
    for step in range(first_step, config.num_train_steps):
        steps_in_bank = BANK_BATCHES * BANK_PASSES
        if step % steps_in_bank == 0:
            generator = torch.Generator().manual_seed(_seed_of(config.seed, step))
            state.bank = _make_bank(pipeline, state, target, anchor_embeds, retain, config, generator)
        loss, parts = _batch_loss(pipeline, state, target, retain, step % steps_in_bank, config)
        take_step_(state, loss, parts, config)
        is_last = step + 1 == config.num_train_steps
        if (step + 1) % LOG_EVERY_N_STEPS == 0 or is_last:
            check_finite(state, config)
        if folder is not None and ((step + 1) % config.checkpoint_every_n_steps == 0 or is_last):
            check_finite(state, config)
            save_checkpoint(state, folder, run)
        if on_step is not None:
            on_step(step + 1, config.num_train_steps)
    return _result(state, first_step, time.monotonic() - started)


# ---------------------------------------- one bank, one batch


def _seed_of(seed: int, step: int) -> int:
    """A seed of its own for each bank, so that what is drawn does not depend on where a run was interrupted."""
    return (seed * 1_000_003 + step + 7) % 2**63


def _make_bank(
    pipeline: Pipeline,
    state: TrainingState,
    target: _Side,
    anchor_embeds: Float[Tensor, "prompts tokens dim"],
    retain: _Side,
    config: EraseConfig,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Points of both terms with what the student is to predict there, and the rows of the batches to come."""
    count = BANK_BATCHES * config.batch_size
    erase_points = _draw_points(pipeline, state, target, count, config, generator, is_target=True)
    targets = predict_in_chunks(pipeline, erase_points, anchor_embeds, erase_points.prompt_ids)
    if config.negative_guidance > 0:
        concept_preds = predict_in_chunks(pipeline, erase_points, target.embeds, erase_points.prompt_ids)
        targets = sdd_target(targets, concept_preds, config.negative_guidance)
    bank = _as_tensors("erase", erase_points, targets)
    if config.retain_weight > 0:
        points = _draw_points(pipeline, state, retain, count, config, generator, is_target=False)
        is_null = torch.rand(count, generator=generator).to(points.prompt_ids.device) < NULL_SHARE
        points = Points(points.latents, points.timesteps, points.prompt_ids.masked_fill(is_null, len(retain.prompts)))
        bank |= _as_tensors("retain", points, predict_in_chunks(pipeline, points, retain.embeds, points.prompt_ids))
    for name in ("erase", "retain"):
        rows = bank_rows(count, config.batch_size, BANK_BATCHES * BANK_PASSES, generator)
        bank[f"{name}_rows"] = torch.stack(list(rows))
    return bank


def _draw_points(
    pipeline: Pipeline,
    state: TrainingState,
    side: _Side,
    count: int,
    config: EraseConfig,
    generator: torch.Generator,
    is_target: bool,
) -> Points:
    if side.latents is not None and (config.latents == "noised" or not is_target):
        every_prompt = torch.arange(len(side.latents), device=side.latents.device)
        return noised_points(pipeline, side.latents, every_prompt, count, config.timesteps, generator)
    sampler = averaged_unet(state) if is_target else pipeline.unet
    return rollout_points(
        pipeline,
        sampler,
        side.embeds,
        encode_null_prompt(pipeline),
        count,
        config.timesteps,
        config.sampling_guidance_scale,
        generator,
    )


def _as_tensors(name: str, points: Points, targets: Tensor) -> dict[str, Tensor]:
    return {
        f"{name}_latents": points.latents,
        f"{name}_timesteps": points.timesteps,
        f"{name}_prompts": points.prompt_ids,
        f"{name}_targets": targets,
    }


def _batch_loss(
    pipeline: Pipeline,
    state: TrainingState,
    target: _Side,
    retain: _Side,
    position: int,
    config: EraseConfig,
) -> tuple[Float[Tensor, ""], tuple[Float[Tensor, ""], Float[Tensor, ""]]]:
    """The loss of one batch, both terms in one forward of the student; also the terms by themselves."""
    bank = state.bank
    terms = [("erase", target)] + ([("retain", retain)] if config.retain_weight > 0 else [])
    rows = {name: bank[f"{name}_rows"][position] for name, _ in terms}

    def gather(what: str) -> Tensor:
        return torch.cat([bank[f"{name}_{what}"][rows[name]] for name, _ in terms])

    embeds = torch.cat([side.embeds[bank[f"{name}_prompts"][rows[name]]] for name, side in terms])
    noise_pred = predict_noise(pipeline, gather("latents"), gather("timesteps"), embeds, unet=state.student)
    errors = (noise_pred - gather("targets")).square().mean(dim=(1, 2, 3))
    erase_loss = errors[: config.batch_size].mean()
    retain_loss = errors[config.batch_size :].mean() if config.retain_weight > 0 else torch.zeros_like(erase_loss)
    return erase_loss + config.retain_weight * retain_loss, (erase_loss, retain_loss)


# ---------------------------------------- inputs and result


def _latents_of(
    pipeline: Pipeline,
    images: Sequence[Image.Image] | None,
    latents: Tensor | None,
    prompts: Sequence[str],
    side: str,
) -> Tensor | None:
    if images is None and latents is None:
        return None
    encoded = encode_images(pipeline, images) if images else latents
    if encoded is None or len(encoded) != len(prompts):
        count = 0 if encoded is None else len(encoded)
        raise InvalidInputError(
            f"There are {count} {side} pictures and {len(prompts)} {side} prompts: give one for each."
        )
    return encoded.to(pipeline.unet.device)


def _check_inputs(
    target_prompts: Sequence[str], latents: Tensor | None, anchors: Sequence[str] | None, config: EraseConfig
) -> None:
    if not target_prompts:
        raise InvalidInputError(
            "Nothing to erase: give a prompt, a concept token or flagged pictures with their prompts."
        )
    if config.latents == "noised" and latents is None:
        raise InvalidInputError(
            "latents = 'noised' needs the flagged pictures: give them, or choose latents = 'rollout'."
        )
    if anchors is not None and len(anchors) != len(target_prompts):
        raise InvalidInputError(
            f"There are {len(anchors)} anchors for {len(target_prompts)} targets: give one for each."
        )


def _anchors(
    target_prompts: Sequence[str], retain_prompts: Sequence[str], tokens: Sequence[ConceptToken], config: EraseConfig
) -> list[str]:
    if (
        config.anchor == "empty" or not retain_prompts
    ):  # without unflagged prompts no word can be told to be the concept's
        return [""] * len(target_prompts)
    placeholders = [token.placeholder for token in tokens]
    plain = [prompt for prompt in target_prompts if not any(name in prompt for name in placeholders)]
    words = concept_words(plain, retain_prompts)
    return [without_concept(prompt, words, placeholders) for prompt in target_prompts]


def _retain_side(
    pipeline: Pipeline,
    prompts: Sequence[str],
    latents: Tensor | None,
    tokens: Sequence[ConceptToken],
    target: _Side,
) -> _Side:
    """Retained prompts and, behind the last, the empty one; without any, the empty prompt on the targets' points."""
    null_embeds = encode_null_prompt(pipeline)
    if not prompts:
        return _Side([], null_embeds, None) if target.latents is None else _null_only(target, null_embeds)
    embeds = torch.cat([encode_prompts_with_tokens(pipeline, prompts, tokens), null_embeds])
    return _Side(prompts, embeds, latents)


def _null_only(target: _Side, null_embeds: Tensor) -> _Side:
    repeated = null_embeds.expand(len(target.prompts) + 1, -1, -1)
    return _Side([""] * len(target.prompts), repeated, target.latents)


def _result(state: TrainingState, first_step: int, seconds: float) -> EraseResult:
    losses = torch.stack(state.losses).tolist() if state.losses else []
    return EraseResult(
        unet=averaged_unet(state),
        losses=[total for total, _, _ in losses],
        erase_losses=[erase for _, erase, _ in losses],
        retain_losses=[retain for _, _, retain in losses],
        num_trainable=sum(parameter.numel() for parameter in state.params),
        first_step=first_step,
        seconds=seconds,
        peak_memory_mib=peak_memory_mib(),
    )


def target_pairs(
    which: str,
    prompts: Sequence[str | None],
    tokens: Sequence[ConceptToken] = (),
    clusters: Sequence[int] = (),
) -> tuple[list[int], list[str]]:
    """Pairs of flagged picture (by index) and prompt to erase, for `tokens`, `prompts` or `both`.

    Args:
        which: `EraseConfig.targets`.
        prompts: Prompt of each flagged picture; None where unknown.
        tokens: Concept tokens.
        clusters: Index of the token of each picture; -1 = none.

    Raises:
        InvalidInputError: No pair comes of it.
    """
    pairs: list[tuple[int, str]] = []
    if which in ("tokens", "both"):
        pairs += [(i, f"a {tokens[cluster].placeholder}") for i, cluster in enumerate(clusters) if cluster >= 0]
    if which in ("prompts", "both"):
        pairs += [(i, prompt) for i, prompt in enumerate(prompts) if prompt]
    if not pairs:
        raise InvalidInputError(
            f"There are no {which} to erase: learn tokens first, or flag pictures with known prompts."
        )
    return [i for i, _ in pairs], [prompt for _, prompt in pairs]
