"""What the stages of the embedded model's training share: steps with their rate, checkpoints, a moving average."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hfi.mini.recipe import MiniRecipe

# Called every ten steps with (stage, steps done, steps, loss).
OnStep = Callable[[str, int, int, float], None]


def cosine_rate(step: int, num_steps: int, peak: float, warmup: int = 100) -> float:
    """Linear warm-up, then a cosine down to 2 % of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    return peak * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * progress)))


class Checkpoint:
    """Saves and finds one stage's training state; a torn write is never seen, because files are renamed into place."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, step: int, **parts: Any) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".unfinished")
        torch.save({"step": step, **{name: part.state_dict() for name, part in parts.items()}}, unfinished)
        os.replace(unfinished, self.path)

    def restore(self, **parts: Any) -> int:
        """Load the parts in place and return the number of steps done; 0 when there is nothing to restore."""
        if not self.path.exists():
            return 0
        state = torch.load(self.path, weights_only=True, map_location="cpu")
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return int(state["step"])


def training_steps(
    name: str,
    num_steps: int,
    peak_rate: float,
    checkpoint: Checkpoint,
    parts: dict[str, Any],
    every: int,
    on_step: OnStep | None,
) -> Iterator[tuple[int, Callable[[Tensor, nn.Module], None]]]:
    """Yield (step, update) for the steps still to do; `update` makes one optimizer step at the scheduled rate, and
    checkpoints follow.

    Losses are read once every ten steps, so that a GPU is not waited for.
    """
    optimizer = parts["optimizer"]
    done = checkpoint.restore(**parts)

    for step in range(done, num_steps):

        def update(loss: Tensor, model: nn.Module, step: int = step) -> None:
            for group in optimizer.param_groups:
                group["lr"] = cosine_rate(step, num_steps, peak_rate)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if step % 10 == 0 and on_step is not None:
                on_step(name, step, num_steps, float(loss.detach()))

        yield step, update
        if (step + 1) % every == 0 or step + 1 == num_steps:
            checkpoint.save(step + 1, **parts)


def autocast(recipe: MiniRecipe) -> torch.autocast:
    """Networks compute in the recipe's precision within the block; weights stay in single precision."""
    return torch.autocast(recipe.device, torch.bfloat16, enabled=recipe.precision == "bfloat16")


def step_rng(seed: int, stage: int, step: int) -> np.random.Generator:
    """A source of randomness for one step, so that a resumed run draws what an uninterrupted one would."""
    return np.random.default_rng((seed, stage, step))


class Average:
    """Exponential moving average of a model's parameters, with the usual faster start."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update_(self, model: nn.Module, step: int) -> None:
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        names, parameters = zip(*model.named_parameters(), strict=True)
        torch._foreach_lerp_([self.shadow[n] for n in names], list(parameters), weight)

    @torch.no_grad()
    def copy_to_(self, model: nn.Module) -> None:
        """Give a model of the same parameters the average's."""
        for name, parameter in model.named_parameters():
            parameter.copy_(self.shadow[name])

    def state_dict(self) -> dict[str, Tensor]:
        return self.shadow

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.shadow = {name: tensor.to(self.shadow[name].device, copy=True) for name, tensor in state.items()}
