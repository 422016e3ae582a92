"""Self-distillation (SDD): the student's prediction for a concept becomes a prediction without it.

    symbol   variable            meaning
    theta    state.student       trained copy; only the chosen weights change
    theta~   state.teacher       moving average of the student; samples z_t, and is deployed
    theta*   pipeline.unet       reference: the frozen original
    c        target.embeds       prompt to erase
    c0       anchor_embeds       what it is mapped to (the empty prompt, the rest of the prompt, another concept)
    c_p      sampling_embeds     prompt that z_t is sampled with
    c_r      retain              prompts whose prediction must not change; a part of them is the empty prompt
    eta      negative_guidance
    sg                           no gradient

    L = || eps_theta(z_t, c) - sg(T) ||^2 + retain_weight || eps_theta(z'_t, c_r) - sg(eps_theta*(z'_t, c_r)) ||^2
    T = eps(z_t, c0) - eta (eps(z_t, c) - eps(z_t, c0))      eps of the reference, the teacher or the student

    sdd_prompts     c_p           c             whose
    own             each          the same      ours
    sample_one      one concept   all, joined   the paper's text and poster
    sample_joint    all, joined   one concept   the authors' code

Sources: SDD, arXiv 2307.05977 (eta = 0, T of the student, z_t from the teacher's sampling); HFI, arXiv 2407.21032
(Beta(3, 3)); eta is ESD's, arXiv 2303.07345. Noised flagged pictures, the retain term, the frozen reference and the
bank are ours.
"""

from __future__ import annotations

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
from hfi.erase.concept import Concept, Terms, prepare_terms
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
from hfi.pipelines import Pipeline, predict_noise


def sdd_target(
    anchor_pred: Float[Tensor, "batch channels height width"],
    concept_pred: Float[Tensor, "batch channels height width"],
    negative_guidance: float,
) -> Float[Tensor, "batch channels height width"]:
    """T = anchor - eta (concept - anchor); eta = 0 is SDD's target. Sources: arXiv 2307.05977, 2303.07345 eq. 7."""
    return anchor_pred - negative_guidance * (concept_pred - anchor_pred)


def mean_square(
    prediction: Float[Tensor, "batch channels height width"], target: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, ""]:
    """|| prediction - target ||^2, by the number of values. Source: arXiv 2307.05977, the distillation loss."""
    return (prediction - target).square().mean()


def erase_sdd(
    pipeline: Pipeline,
    concept: Concept,
    config: EraseConfig,
    on_step: OnStep | None = None,
    *,
    checkpoint_dir: str | Path | None = None,
    start: UNet2DConditionModel | None = None,
) -> EraseResult:
    """Erase a concept from a copy of the pipeline's UNet. The pipeline itself is left as it was, bit for bit.

    Args:
        concept: What is erased and what is kept.
        config: Points, targets, trainable weights, steps, rates, seed.
        on_step: Called after each step with (num_steps_done, num_train_steps, newest losses, every few steps).
        checkpoint_dir: Where checkpoints are kept. A run with the same inputs goes on from the last one, to the same
            weights as an uninterrupted run.
        start: Where the student starts; None = the pipeline's own UNet, which stays the reference in any case.

    Raises:
        InvalidInputError: Prompts are missing, or pictures and prompts differ in number.
        TrainingDivergedError: The loss is not finite, or exploded; nothing of that step was kept.
    """
    terms = prepare_terms(pipeline, concept, config)
    state = start_training(start if start is not None else pipeline.unet, config, has_teacher=True)
    folder = Path(checkpoint_dir) if checkpoint_dir is not None else None
    run = fingerprint(config, terms.prompts, terms.tensors())
    first_step = restore_checkpoint_(state, folder, run)
    for step in range(first_step, config.num_train_steps):
        position = step % steps_in_bank(config)
        if position == 0:  # 1. sample z_t with the teacher, or noise pictures, for many steps at once
            state.bank = _make_bank(pipeline, state, terms, config, bank_generator(config.seed, step))
        erased = take_batch(state.bank, "erase", terms.target, position)
        kept = take_batch(state.bank, "retain", terms.retain, position) if config.retain_weight > 0 else None
        target = _target_of(pipeline, state, terms, erased, config)  # 2. the target, without gradient
        loss, parts = _loss_of(pipeline, state, erased, target, kept, config)  # 3. the student's errors
        take_step_(state, loss, parts, config)  # 4. its step, and the teacher's
        after_step(state, step, config, folder, run, on_step)
    return build_result(state, first_step)


def _make_bank(
    pipeline: Pipeline, state: TrainingState, terms: Terms, config: EraseConfig, generator: torch.Generator
) -> dict[str, Tensor]:
    """Points of both terms, with what the reference predicts there: it never changes, so many are predicted at once."""
    sampler = state.teacher if state.teacher is not None else state.student
    points = draw_points(pipeline, sampler, terms.target, config, generator, is_noised=config.latents == "noised")
    predictions = {}
    if config.sdd_target == "reference":
        anchors = predict_in_chunks(pipeline, points, terms.anchor_embeds, points.prompt_ids)
        predictions["targets"] = anchors
        if config.negative_guidance > 0:
            concepts = predict_in_chunks(pipeline, points, terms.target.embeds, points.prompt_ids)
            predictions["targets"] = sdd_target(anchors, concepts, config.negative_guidance)
    bank = bank_tensors("erase", points, **predictions)
    return bank | retain_tensors(pipeline, terms.retain, config, generator) | shuffled_rows(config, generator)


@torch.no_grad()
def _target_of(
    pipeline: Pipeline, state: TrainingState, terms: Terms, batch: Batch, config: EraseConfig
) -> Float[Tensor, "batch channels height width"]:
    """T of a batch: from the bank if it is the reference's, else from the model as it is now."""
    if "targets" in batch.predictions:
        return batch.predictions["targets"]
    model = state.teacher if config.sdd_target == "teacher" else state.student
    anchor = predict_noise(pipeline, batch.latents, batch.timesteps, terms.anchor_embeds[batch.prompt_ids], unet=model)
    if config.negative_guidance == 0:
        return anchor
    concept = predict_noise(pipeline, batch.latents, batch.timesteps, batch.embeds, unet=model)
    return sdd_target(anchor, concept, config.negative_guidance)


def _loss_of(
    pipeline: Pipeline,
    state: TrainingState,
    erased: Batch,
    target: Float[Tensor, "batch channels height width"],
    kept: Batch | None,
    config: EraseConfig,
) -> tuple[Float[Tensor, ""], tuple[Float[Tensor, ""], Float[Tensor, ""]]]:
    """L of a batch, both terms in one forward of the student; also the terms by themselves."""
    batches = [erased] if kept is None else [erased, kept]
    latents = torch.cat([batch.latents for batch in batches])
    timesteps = torch.cat([batch.timesteps for batch in batches])
    embeds = torch.cat([batch.embeds for batch in batches])
    prediction = predict_noise(pipeline, latents, timesteps, embeds, unet=state.student)
    predictions = prediction.tensor_split([len(erased.latents)])
    erase_loss = mean_square(predictions[0], target)
    if kept is None:
        return erase_loss, (erase_loss, torch.zeros_like(erase_loss))
    retain_loss = mean_square(predictions[1], kept.predictions["targets"])
    return erase_loss + config.retain_weight * retain_loss, (erase_loss, retain_loss)
