"""All but One, our reading: the guidance term of a concept changes, and the unconditional prediction stays in place.

    symbol   variable              meaning
    theta    state.student         trained copy, and what is deployed
    theta*   pipeline.unet         reference: the frozen original
    c, c0    target, null_embeds   concept to erase; the empty prompt
    c_alt    anchor_embeds         the alternative concept, if one was chosen (`anchor` is not `empty`)
    g(z, c)                        guidance term eps(z, c) - eps(z, c0)
    eta      negative_guidance     without an alternative: 0 = no guidance left, above = away from the concept
    lambda   abo_null_weight
    c_r      retain                prompts whose prediction must not change

    G = g_theta*(z, c_alt)   or   -eta g_theta*(z, c)
    L = || g_theta(z, c) - sg(G) ||^2 + lambda || eps_theta(z, c0) - sg(eps_theta*(z, c0)) ||^2
      + retain_weight || eps_theta(z', c_r) - sg(eps_theta*(z', c_r)) ||^2

z lies on the original model's guided trajectory for c, so that the layout follows the original picture: sampled
(`latents = rollout`), or the flagged pictures, which are ends of such trajectories, noised.

Source: All but One, arXiv 2312.12807, which states what is changed and what is held but neither constants nor code. The
loss and its constants are ours, and so is the retain term.
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
from hfi.pipelines import Pipeline, encode_null_prompt, predict_noise


def guidance_term(
    concept_pred: Float[Tensor, "batch channels height width"], null_pred: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, "batch channels height width"]:
    """g = eps(z, c) - eps(z, c0). Source: classifier-free guidance, arXiv 2207.12598, equation 6."""
    return concept_pred - null_pred


def abo_target(
    concept_pred: Float[Tensor, "batch channels height width"],
    null_pred: Float[Tensor, "batch channels height width"],
    alternative_pred: Float[Tensor, "batch channels height width"] | None,
    eta: float,
) -> Float[Tensor, "batch channels height width"]:
    """G: the alternative's guidance term if there is one, else -eta times the concept's own. Ours."""
    if alternative_pred is not None:
        return guidance_term(alternative_pred, null_pred)
    return -eta * guidance_term(concept_pred, null_pred)


def abo_loss(
    student_term: Float[Tensor, "batch channels height width"],
    wanted_term: Float[Tensor, "batch channels height width"],
    student_null: Float[Tensor, "batch channels height width"],
    reference_null: Float[Tensor, "batch channels height width"],
    null_weight: float,
) -> Float[Tensor, ""]:
    """|| g - G ||^2 + lambda || eps(c0) - eps*(c0) ||^2, by the number of values. Ours."""
    guidance_error = (student_term - wanted_term).square().mean()
    return guidance_error + null_weight * (student_null - reference_null).square().mean()


def erase_abo(
    pipeline: Pipeline,
    concept: Concept,
    config: EraseConfig,
    on_step: OnStep | None = None,
    *,
    checkpoint_dir: str | Path | None = None,
    start: UNet2DConditionModel | None = None,
) -> EraseResult:
    """Erase a concept from a copy of the pipeline's UNet. The pipeline itself is left as it was, bit for bit.

    Args and errors are those of `hfi.erase.sdd.erase_sdd`.
    """
    terms = prepare_terms(pipeline, concept, config)
    state = start_training(start if start is not None else pipeline.unet, config, has_teacher=False)
    folder = Path(checkpoint_dir) if checkpoint_dir is not None else None
    run = fingerprint(config, terms.prompts, terms.tensors())
    first_step = restore_checkpoint_(state, folder, run)
    for step in range(first_step, config.num_train_steps):
        position = step % steps_in_bank(config)
        if position == 0:  # 1. points of the original's trajectories, with G and eps(c0) there
            state.bank = _make_bank(pipeline, terms, config, bank_generator(config.seed, step))
        erased = take_batch(state.bank, "erase", terms.target, position)
        kept = take_batch(state.bank, "retain", terms.retain, position) if config.retain_weight > 0 else None
        loss, parts = _loss_of(pipeline, state, erased, kept, config)  # 2. the student's errors
        take_step_(state, loss, parts, config)  # 3. its step
        after_step(state, step, config, folder, run, on_step)
    return build_result(state, first_step)


def _make_bank(pipeline: Pipeline, terms: Terms, config: EraseConfig, generator: torch.Generator) -> dict[str, Tensor]:
    """Points of both terms with what the original predicts there."""
    is_noised = config.latents == "noised"
    points = draw_points(pipeline, pipeline.unet, terms.target, config, generator, is_noised=is_noised)
    concept = predict_in_chunks(pipeline, points, terms.target.embeds, points.prompt_ids)
    null = predict_in_chunks(pipeline, points, encode_null_prompt(pipeline), torch.zeros_like(points.prompt_ids))
    alternative = None
    if any(terms.prompts[1]):
        alternative = predict_in_chunks(pipeline, points, terms.anchor_embeds, points.prompt_ids)
    wanted = abo_target(concept, null, alternative, config.negative_guidance)
    bank = bank_tensors("erase", points, terms=wanted, nulls=null)
    return bank | retain_tensors(pipeline, terms.retain, config, generator) | shuffled_rows(config, generator)


def _loss_of(
    pipeline: Pipeline, state: TrainingState, erased: Batch, kept: Batch | None, config: EraseConfig
) -> tuple[Float[Tensor, ""], tuple[Float[Tensor, ""], Float[Tensor, ""]]]:
    """L of a batch, everything in one forward of the student; also the terms by themselves."""
    null_embeds = encode_null_prompt(pipeline).expand(len(erased.latents), -1, -1)
    kept_parts = [] if kept is None else [kept]
    latents = torch.cat([erased.latents, erased.latents, *(batch.latents for batch in kept_parts)])
    timesteps = torch.cat([erased.timesteps, erased.timesteps, *(batch.timesteps for batch in kept_parts)])
    embeds = torch.cat([erased.embeds, null_embeds, *(batch.embeds for batch in kept_parts)])
    prediction = predict_noise(pipeline, latents, timesteps, embeds, unet=state.student)
    predictions = prediction.tensor_split([len(erased.latents), 2 * len(erased.latents)])
    erase_loss = abo_loss(
        guidance_term(predictions[0], predictions[1]),
        erased.predictions["terms"],
        predictions[1],
        erased.predictions["nulls"],
        config.abo_null_weight,
    )
    if kept is None:
        return erase_loss, (erase_loss, torch.zeros_like(erase_loss))
    retain_loss = (predictions[2] - kept.predictions["targets"]).square().mean()
    return erase_loss + config.retain_weight * retain_loss, (erase_loss, retain_loss)
