"""Erasing Concepts (ESD): the student's prediction for a concept becomes the original's, guided away from it.

    symbol   variable            meaning
    theta    state.student       trained copy; samples z_t, and is deployed
    theta*   pipeline.unet       reference: the frozen original
    c        target.embeds       concept to erase
    c0       null_embeds         the empty prompt
    b        base_embeds         what is left of c: the empty prompt, an anchor, or the concept that c is erased from
    eta      negative_guidance   the paper's; the authors' newer code calls eta + 1 "negative_guidance"
    c_r      retain              prompts whose prediction must not change (ours)

    L = || eps_theta(z_t, c) - sg(eps_theta*(z_t, b) - eta (eps_theta*(z_t, c) - eps_theta*(z_t, c0))) ||^2

With `esd_erase_from` b is that concept, z_t is sampled with it, and the student is trained under it: c leaves b.

    esd_variant   trained weights                      meant for
    x             cross-attention                      what a prompt names
    u             all but cross-attention              what no prompt needs to name
    strict        keys and values of cross-attention   the least change

Source: ESD, arXiv 2303.07345, equation 7; `erase_from` and `strict` from the authors' code. Noised flagged pictures
instead of sampling (`latents = noised`), the retain term and the bank are ours.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from hfi.config import EraseConfig
from hfi.erase.bank import (
    Batch,
    bank_generator,
    bank_tensors,
    draw_points,
    predict_in_chunks,
    retain_tensors,
    shuffled_rows,
    steps_in_bank,
    take_batch,
)
from hfi.erase.concept import Concept, Side, Terms, prepare_terms
from hfi.erase.training import (
    EraseResult,
    OnStep,
    TrainingState,
    after_step,
    build_result,
    fingerprint,
    restore_checkpoint_,
    start_training,
    take_step_,
)
from hfi.inversion.tokens import encode_prompts_with_tokens
from hfi.pipelines import Pipeline, encode_null_prompt, predict_noise

TRAINED_BY_VARIANT = {"x": "cross_attention", "u": "non_cross_attention", "strict": "cross_attention_kv"}


def esd_target(
    base_pred: Float[Tensor, "batch channels height width"],
    concept_pred: Float[Tensor, "batch channels height width"],
    null_pred: Float[Tensor, "batch channels height width"],
    eta: float,
) -> Float[Tensor, "batch channels height width"]:
    """base - eta (concept - null); base = null is the paper's. Source: arXiv 2303.07345, equation 7."""
    return base_pred - eta * (concept_pred - null_pred)


def erase_esd(
    pipeline: Pipeline,
    concept: Concept,
    config: EraseConfig,
    on_step: OnStep | None = None,
    *,
    checkpoint_dir: str | Path | None = None,
    start: UNet2DConditionModel | None = None,
) -> EraseResult:
    """Erase a concept from a copy of the pipeline's UNet. The pipeline itself is left as it was, bit for bit.

    Args and errors are those of `hfi.erase.sdd.erase_sdd`; `config.trainable` gives way to `config.esd_variant`.
    """
    config = config.model_copy(update={"trainable": TRAINED_BY_VARIANT[config.esd_variant]})
    terms, base_embeds = _prepare_terms(pipeline, concept, config)
    state = start_training(start if start is not None else pipeline.unet, config, has_teacher=False)
    folder = Path(checkpoint_dir) if checkpoint_dir is not None else None
    run = fingerprint(config, terms.prompts, [*terms.tensors(), base_embeds])
    first_step = restore_checkpoint_(state, folder, run)
    for step in range(first_step, config.num_train_steps):
        position = step % steps_in_bank(config)
        if position == 0:  # 1. sample z_t with the student, or noise pictures; 2. targets of the frozen original
            state.bank = _make_bank(pipeline, state, terms, base_embeds, config, bank_generator(config.seed, step))
        erased = take_batch(state.bank, "erase", _trained_side(terms, base_embeds, config), position)
        kept = take_batch(state.bank, "retain", terms.retain, position) if config.retain_weight > 0 else None
        erase_loss = _error_of(pipeline, state, erased)  # 3. the student's errors
        retain_loss = _error_of(pipeline, state, kept) if kept is not None else torch.zeros_like(erase_loss)
        loss = erase_loss + config.retain_weight * retain_loss
        take_step_(state, loss, (erase_loss, retain_loss), config)  # 4. its step
        after_step(state, step, config, folder, run, on_step)
    return build_result(state, first_step)


def _prepare_terms(
    pipeline: Pipeline, concept: Concept, config: EraseConfig
) -> tuple[Terms, Float[Tensor, "prompts rows dim"]]:
    """Both sides, and b of each target."""
    terms = prepare_terms(pipeline, concept, config)
    if not config.esd_erase_from:
        return terms, terms.anchor_embeds
    base = encode_prompts_with_tokens(pipeline, [config.esd_erase_from], concept.tokens)
    return terms, base.expand(len(terms.target.embeds), -1, -1)


def _trained_side(terms: Terms, base_embeds: Float[Tensor, "prompts rows dim"], config: EraseConfig) -> Side:
    """The prompts that the student is trained under: c, or what c is erased from."""
    if not config.esd_erase_from:
        return terms.target
    return dataclasses.replace(terms.target, embeds=base_embeds, sampling_embeds=base_embeds)


def _make_bank(
    pipeline: Pipeline,
    state: TrainingState,
    terms: Terms,
    base_embeds: Float[Tensor, "prompts rows dim"],
    config: EraseConfig,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Points of both terms with what the student is to predict there."""
    side, is_noised = _trained_side(terms, base_embeds, config), config.latents == "noised"
    points = draw_points(pipeline, state.student, side, config, generator, is_noised=is_noised)
    base = predict_in_chunks(pipeline, points, base_embeds, points.prompt_ids)
    concept = predict_in_chunks(pipeline, points, terms.target.embeds, points.prompt_ids)
    null = predict_in_chunks(pipeline, points, encode_null_prompt(pipeline), torch.zeros_like(points.prompt_ids))
    bank = bank_tensors("erase", points, targets=esd_target(base, concept, null, config.negative_guidance))
    return bank | retain_tensors(pipeline, terms.retain, config, generator) | shuffled_rows(config, generator)


def _error_of(pipeline: Pipeline, state: TrainingState, batch: Batch) -> Float[Tensor, ""]:
    prediction = predict_noise(pipeline, batch.latents, batch.timesteps, batch.embeds, unet=state.student)
    return (prediction - batch.predictions["targets"]).square().mean()
