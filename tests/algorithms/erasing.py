"""A small concept and settings that the tests of the erasers share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from hfi.config import EraseConfig
from hfi.erase import Concept, EraseResult
from hfi.erase import erase as erase_concept
from hfi.inversion import ConceptToken
from hfi.pipelines import Pipeline
from tests import tiny

TOKEN = ConceptToken("<concept>", torch.full((1, tiny.TEXT_WIDTH), 0.02))
# Two batches a bank, used twice: a few steps then cross the border between two banks.
CONFIG = EraseConfig(
    anchor="empty", num_train_steps=3, batch_size=2, learning_rate=1e-3, checkpoint_every_n_steps=2,
    bank_batches=2, bank_passes=2,
)  # fmt: skip


def latents(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


CONCEPT = Concept(
    ["a bomb", "an axe", "a <concept>"],
    latents=latents(3),
    tokens=[TOKEN],
    retain_prompts=["a cat", "a dog"],
    retain_latents=latents(2, seed=1),
)
TEXT_ONLY = Concept(["a bomb", "an axe"], retain_prompts=["a cat"])


def changed(config: EraseConfig = CONFIG, **updates: Any) -> EraseConfig:
    """A configuration with other settings, checked as if it were typed."""
    return EraseConfig.model_validate(config.model_dump() | updates)


def erase(
    pipeline: Pipeline,
    config: EraseConfig = CONFIG,
    on_step: Callable[[int, int, Mapping[str, float]], None] | None = None,
    checkpoint_dir: Any = None,
    **concept: Any,
) -> EraseResult:
    """Erase CONCEPT, with other values for some of its fields."""
    given = dataclasses.replace(CONCEPT, **concept)
    return erase_concept(pipeline, given, config, on_step, checkpoint_dir=checkpoint_dir)


def weights(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """Copies of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in unet.named_parameters()}


def is_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of parameters are equal, bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
