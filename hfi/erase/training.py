"""What the erasers share: which weights may change, their moving average, checkpoints, and the result.

Loops are not shared: each method is one readable file.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from hfi.config import EraseConfig
from hfi.errors import InvalidInputError, TrainingDivergedError

CHECKPOINT_NAME = "checkpoint.pt"
WEIGHT_DECAY = 1e-4  # SDD's code
LOG_EVERY_N_STEPS = 10

# Parts of a parameter's name that put it into a set; "attn2" is cross-attention in diffusers.
TRAINABLE_NAMES: dict[str, tuple[str, ...]] = {
    "cross_attention": ("attn2.",),
    "cross_attention_kv": ("attn2.to_k.", "attn2.to_v."),
    "full": ("",),
}


@dataclass
class EraseResult:
    """An erased UNet and how it came about.

    Attributes:
        unet: The model to deploy: the moving average of the student. The pipeline it came from is unchanged.
        losses: Total loss of each step.
        erase_losses: Its erasing part.
        retain_losses: Its retaining part (before weighting).
        num_trainable: Numbers that were allowed to change.
        first_step: 0, or the step of the checkpoint that this run went on from.
        seconds: Wall-clock time of this call.
        peak_memory_mib: Highest resident memory of the process so far.
    """

    unet: UNet2DConditionModel
    losses: list[float]
    erase_losses: list[float]
    retain_losses: list[float]
    num_trainable: int
    first_step: int = 0
    seconds: float = 0.0
    peak_memory_mib: float = 0.0


@dataclass
class TrainingState:
    """All that changes while a student trains; what a checkpoint holds.

    Attributes:
        student: The trained copy.
        params: Its trainable parameters, in the order of their names.
        average: Their exponential moving average (the teacher).
        optimizer: AdamW over `params`.
        losses: For each step done a tensor [total, erase, retain].
        bank: Training points in use, as plain tensors.
    """

    student: UNet2DConditionModel
    params: list[nn.Parameter]
    average: list[Tensor]
    optimizer: torch.optim.Optimizer
    losses: list[Tensor] = field(default_factory=list)
    bank: dict[str, Tensor] = field(default_factory=dict)

    @property
    def num_steps_done(self) -> int:
        """Optimizer steps taken so far."""
        return len(self.losses)


def start_training(unet: UNet2DConditionModel, config: EraseConfig) -> TrainingState:
    """A student that is a copy of `unet`, with only the configured weights trainable. `unet` itself is left alone."""
    student = copy.deepcopy(unet).train(False)  # no dropout: student and reference must differ by weights alone
    parts = TRAINABLE_NAMES[config.trainable]
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(any(part in name for part in parts))
    params = [parameter for parameter in student.parameters() if parameter.requires_grad]
    if not params:
        raise InvalidInputError(f"The model has no {config.trainable} weights: choose another set with --trainable.")
    optimizer = torch.optim.AdamW(params, lr=config.learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
    return TrainingState(student, params, [parameter.detach().clone() for parameter in params], optimizer)


def update_average_(average: Sequence[Tensor], params: Sequence[Tensor], decay: float) -> None:
    """average <- decay * average + (1 - decay) * params, in place."""
    torch._foreach_lerp_(list(average), [parameter.detach() for parameter in params], 1 - decay)


def average_decay(decay: float, step: int) -> float:
    """Decay at a step: short runs would otherwise keep half of the original's weights in the average.

    Source: min(decay, (1 + step) / (10 + step)), as in common implementations of EMA.
    """
    return min(decay, (1 + step) / (10 + step))


def averaged_unet(state: TrainingState) -> UNet2DConditionModel:
    """A frozen copy of the student whose trained weights are the average's."""
    unet = copy.deepcopy(state.student)
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter, value in zip(trained, state.average, strict=True):
            parameter.copy_(value)
    return unet.requires_grad_(False).eval()


def take_step_(state: TrainingState, loss: Tensor, parts: Sequence[Tensor], config: EraseConfig) -> None:
    """Backward, clip, optimizer step and average, without a host sync; a loss that is not finite changes nothing."""
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(state.params, config.max_gradient_norm)
    state.optimizer.found_inf = (~loss.detach().isfinite()).float()  # the fused kernel then skips its step
    state.optimizer.step()
    update_average_(state.average, state.params, average_decay(config.ema_decay, state.num_steps_done))
    state.losses.append(torch.stack([loss.detach(), *(part.detach() for part in parts)]))


def check_finite(state: TrainingState, config: EraseConfig) -> None:
    """The one host sync of an interval: raise for the first step whose loss was not finite."""
    first = max(0, state.num_steps_done - LOG_EVERY_N_STEPS)
    for offset, value in enumerate(torch.stack(state.losses[first:])[:, 0].tolist()):
        if not math.isfinite(value):
            raise TrainingDivergedError("erase", step=first + offset, seed=config.seed, loss=value)


# ---------------------------------------- checkpoints


def fingerprint(config: EraseConfig, prompts: Sequence[Sequence[str]], tensors: Sequence[Tensor]) -> str:
    """Hash of everything that decides the result; a checkpoint of another run is not gone on from."""
    settings = config.model_dump(mode="json", exclude={"device", "checkpoint_every_n_steps"})
    digest = hashlib.sha256(json.dumps([settings, [list(part) for part in prompts]], sort_keys=True).encode())
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(state: TrainingState, folder: Path, run: str) -> None:
    """Write the state beside its place, then rename: a kill leaves the old checkpoint or the new one, never a half."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "run": run,
        "params": [parameter.detach() for parameter in state.params],
        "average": state.average,
        "optimizer": state.optimizer.state_dict(),
        "losses": torch.stack(state.losses),
        "bank": state.bank,
    }
    unfinished = folder / f"{CHECKPOINT_NAME}.unfinished"
    torch.save(content, unfinished)
    os.replace(unfinished, folder / CHECKPOINT_NAME)


def restore_checkpoint_(state: TrainingState, folder: Path, run: str) -> bool:
    """Go on from a checkpoint of the same run; False if there is none, or one of another run."""
    path = folder / CHECKPOINT_NAME
    if not path.is_file():
        return False
    content = torch.load(path, map_location=state.params[0].device, weights_only=True)
    if content["run"] != run:
        return False
    with torch.no_grad():
        for targets, values in ((state.params, content["params"]), (state.average, content["average"])):
            for target, value in zip(targets, values, strict=True):
                target.copy_(value)
    state.optimizer.load_state_dict(content["optimizer"])
    state.losses = list(content["losses"])
    state.bank = content["bank"]
    return True


def peak_memory_mib() -> float:
    """Highest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
