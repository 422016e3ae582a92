"""Rounds: erase, look for what still evokes the concept by inverting again on the erased model, erase that too.

    theta_0 = the original,  V = the targets as given
    for round r = 1 .. robust_rounds:
        theta_r <- erase V from theta_(r-1)                 by `robust_method`; the reference stays the original
        v_r <- invert the flagged pictures on theta_r       (not after the last round)
        V <- V + { v_r }

Everything found so far is erased again in each round, so that nothing comes back behind the newest token.
The inversion is HFI's, reward-weighted; its first loss on the erased model says how far away the concept was pushed.

Source: STEREO, arXiv 2408.16807, stage 1 (there 4 rounds of 200 erasing and 3,000 inversion steps); its second stage is
not here. The limit: an attack without text, such as TINA, is not covered by anything that is learned through text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from hfi.config import EraseConfig, InvertConfig
from hfi.erase.abo import erase_abo
from hfi.erase.closed_form import erase_closed_form
from hfi.erase.concept import TOKEN_TEMPLATE, Concept
from hfi.erase.esd import erase_esd
from hfi.erase.sdd import erase_sdd
from hfi.erase.training import EraseResult, OnStep, fingerprint, peak_memory_mib
from hfi.errors import InvalidInputError
from hfi.inversion.tokens import ConceptToken, load_concept_tokens
from hfi.inversion.train import invert_latents
from hfi.parallel import is_first_part
from hfi.pipelines import Pipeline, encode_images
from hfi.prompt_words import SLOT


class Eraser(Protocol):
    """What every method looks like."""

    def __call__(
        self,
        pipeline: Pipeline,
        concept: Concept,
        config: EraseConfig,
        on_step: OnStep | None = None,
        *,
        checkpoint_dir: str | Path | None = None,
        start: UNet2DConditionModel | None = None,
    ) -> EraseResult:
        """Erase a concept from a copy of the pipeline's UNet."""


ERASERS: dict[str, Eraser] = {
    "sdd": erase_sdd, "esd": erase_esd, "abo": erase_abo, "closed_form": erase_closed_form,
}  # fmt: skip
# Called with (round, tokens found) after each inversion.
OnTokens = Callable[[int, list[ConceptToken]], None]
CountStep = Callable[[int, int, Mapping[str, float]], None]


def erase_robust(
    pipeline: Pipeline,
    concept: Concept,
    config: EraseConfig,
    on_step: OnStep | None = None,
    *,
    checkpoint_dir: str | Path | None = None,
    start: UNet2DConditionModel | None = None,
) -> EraseResult:
    """Erase a concept, and in further rounds what inversion still finds of it. The pipeline is left as it was.

    Args:
        concept: What is erased and what is kept, with flagged pictures.
        config: `robust_method` and its settings, `robust_rounds`, `robust_invert_steps`.
        on_step: Called after each step with (steps done, steps in all, newest losses), those of inversions included.
        checkpoint_dir: Where the rounds keep their checkpoints and tokens, to go on from.
        start: The model of the first round; None = the pipeline's own.

    Raises:
        InvalidInputError: There is no flagged picture to invert.
        TrainingDivergedError: A loss is not finite, or exploded.
    """
    seconds_inverting = 0.0
    folder = Path(checkpoint_dir) if checkpoint_dir is not None else None
    latents, weights = _flagged_latents(pipeline, concept, config)
    run = _fingerprint(concept, latents, weights, config)
    unet, results, found = start, [], []
    count_step = _step_counter(config, on_step)
    for number in range(config.robust_rounds):
        round_folder = folder / f"round-{number + 1}" if folder is not None else None
        result = ERASERS[config.robust_method](
            pipeline,
            with_tokens(concept, found, latents),
            round_config(config, number),
            lambda done, _total, losses, number=number: count_step(number, done, losses),
            checkpoint_dir=round_folder,
            start=unet,
        )
        unet = result.unet
        results.append(result)
        if number + 1 < config.robust_rounds:
            token_folder = round_folder / f"token-{run}" if round_folder is not None else None
            again = _invert_again(
                pipeline, unet, latents, weights, concept.captions, config, number, count_step, token_folder
            )
            found += again
            seconds_inverting += float(again[0].card["seconds"])
    return EraseResult(
        unet=result.unet,
        losses=[loss for result in results for loss in result.losses],
        erase_losses=[loss for result in results for loss in result.erase_losses],
        retain_losses=[loss for result in results for loss in result.retain_losses],
        num_trainable=result.num_trainable,
        first_step=sum(result.first_step for result in results),
        seconds=sum(result.seconds for result in results) + seconds_inverting,
        peak_memory_mib=peak_memory_mib(result.unet.device),
        tokens=found,
    )


def round_config(config: EraseConfig, number: int) -> EraseConfig:
    """The configuration of a round: its method, and randomness of its own."""
    return config.model_copy(update={"method": config.robust_method, "seed": config.seed + number})


def steps_of_erasure(method: str, config: EraseConfig) -> int:
    """Steps that an eraser counts: of the optimizer, or edits."""
    return config.closed_form_rounds + 1 if method == "closed_form" else config.num_train_steps


def count_robust_steps(config: EraseConfig) -> int:
    """Steps of all rounds, those of the inversions between them included."""
    erasures = config.robust_rounds * steps_of_erasure(config.robust_method, config)
    return erasures + (config.robust_rounds - 1) * config.robust_invert_steps


def with_tokens(concept: Concept, found: Sequence[ConceptToken], latents: Tensor | None) -> Concept:
    """The concept with found tokens as further targets, each paired with as many flagged pictures as fall to it."""
    if not found:
        return concept if latents is None else dataclasses.replace(concept, images=None, latents=latents)
    names = [token.placeholder for token in found]
    made_with, captions = [""] * len(names), [""] * len(names)
    if latents is not None:
        repeats = -(-len(latents) // len(names))
        names = (names * repeats)[: len(latents)]
        made_with = list(concept.picture_prompts or concept.prompts)
        captions = list(concept.captions or [""] * len(latents))
        latents = torch.cat([latents, latents])
    prompts = [(caption or TOKEN_TEMPLATE).replace(SLOT, name) for caption, name in zip(captions, names, strict=True)]
    anchors = None if concept.anchors is None else [*concept.anchors, *([""] * len(prompts))]
    return dataclasses.replace(
        concept,
        prompts=[*concept.prompts, *prompts],
        images=None,
        latents=latents,
        picture_prompts=[*(concept.picture_prompts or concept.prompts), *made_with],
        captions=None if concept.captions is None else [*concept.captions, *captions],
        anchors=anchors,
        tokens=[*concept.tokens, *found],
    )


def _flagged_latents(pipeline: Pipeline, concept: Concept, config: EraseConfig) -> tuple[Tensor | None, list[float]]:
    """Latents of the flagged pictures, encoded once for all rounds, and their weights."""
    latents = encode_images(pipeline, concept.images) if concept.images else concept.latents
    if latents is None and config.robust_rounds > 1:
        raise InvalidInputError("method = 'robust' inverts the flagged pictures again: give them with the concept.")
    count = 0 if latents is None else len(latents)
    weights = list(concept.weights) if concept.weights is not None else [1.0] * count
    if len(weights) != count or count not in (0, len(concept.prompts)):
        raise InvalidInputError(
            f"There are {count} flagged pictures, {len(weights)} weights and {len(concept.prompts)} prompts: give one "
            f"each."
        )
    return latents, weights


def _fingerprint(concept: Concept, latents: Tensor | None, weights: Sequence[float], config: EraseConfig) -> str:
    """Tells the tokens of one run from those of another in the same folder."""
    prompts = [concept.prompts, concept.anchors or [], concept.retain_prompts, concept.captions or []]
    rows = [token.learned_embeds for token in concept.tokens]
    known = [tensor for tensor in (latents, concept.retain_latents, torch.tensor(weights)) if tensor is not None]
    return fingerprint(config, prompts, [*known, *rows])[:16]


def _invert_again(
    pipeline: Pipeline,
    unet: UNet2DConditionModel,
    latents: Tensor,
    weights: Sequence[float],
    captions: Sequence[str] | None,
    config: EraseConfig,
    number: int,
    count_step: CountStep,
    folder: Path | None,
) -> list[ConceptToken]:
    """The token that evokes the flagged pictures on the erased model; kept in the folder, to go on from."""
    if folder is not None and folder.is_dir():
        return load_concept_tokens(folder)
    settings = InvertConfig(
        placeholder=f"<again-{number + 1}>",
        num_train_steps=config.robust_invert_steps,
        stopping="steps",
        seed=config.seed + number,
        batch_size=min(config.batch_size, 16),
        precision=config.precision,
    )
    done = steps_of_erasure(config.robust_method, config)
    tokens = invert_latents(
        pipeline, latents, weights, settings, unet=unet, captions=captions,
        on_step=lambda step, _total, losses: count_step(number, done + step, losses),
    )  # fmt: skip
    if folder is not None and is_first_part():
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        for token in tokens:
            token.save(unfinished)
        unfinished.rename(folder)
    return tokens


def _step_counter(config: EraseConfig, on_step: OnStep | None) -> CountStep:
    """Turns (round, steps done in it, losses) into steps done in all."""
    per_round = steps_of_erasure(config.robust_method, config) + config.robust_invert_steps
    total = count_robust_steps(config)

    def count(number: int, done: int, losses: Mapping[str, float]) -> None:
        if on_step is not None:
            on_step(number * per_round + done, total, losses)

    return count
