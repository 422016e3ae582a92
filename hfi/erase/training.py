"""What the erasers share: which weights may change, their moving average, checkpoints, and the result.

Loops are not shared: each method is one readable file.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import pickle
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from hfi.config import EraseConfig
from hfi.errors import InvalidInputError, TrainingDivergedError
from hfi.inversion.tokens import ConceptToken
from hfi.parallel import average_, is_first_part, is_so_everywhere

CHECKPOINT_NAME = "checkpoint.pt"
WEIGHT_DECAY = 1e-4  # SDD's code
LOG_EVERY_N_STEPS = 10
LOSS_NAMES = ("loss", "erase", "retain")
# A loss this many times that of the first step, and larger than that of predicting nothing, is an explosion. Ours.
EXPLOSION_FACTOR = 20.0
LOSS_OF_NOTHING = 1.0  # mean square of noise

# Called after each step with (num_steps_done, num_steps, newest losses by name); there are losses every
# LOG_EVERY_N_STEPS only, because reading them waits for the device.
OnStep = Callable[[int, int, Mapping[str, float]], None]


def is_trainable(name: str, which: str) -> bool:
    """Whether a parameter belongs to a set of `EraseConfig.trainable`; "attn2" is cross-attention in diffusers."""
    match which:
        case "cross_attention":
            return "attn2." in name
        case "cross_attention_kv":
            return "attn2.to_k." in name or "attn2.to_v." in name
        case "self_attention":
            return "attn1." in name
        case "non_cross_attention":
            return "attn2." not in name
        case "full":
            return True
    raise InvalidInputError(
        f"There is no set of weights {which!r}: choose cross_attention, cross_attention_kv, self_attention, "
        f"non_cross_attention or full."
    )


@dataclass
class EraseResult:
    """An erased UNet and how it came about.

    Attributes:
        unet: The model to deploy. The pipeline it came from is unchanged, and shares nothing with it.
        losses: Total loss of each step; of the closed form what is left of the concept before and after each edit.
        erase_losses: Its erasing part.
        retain_losses: Its retaining part (before weighting).
        num_trainable: Numbers that were allowed to change.
        first_step: 0, or the step of the checkpoint that this run went on from.
        seconds: Wall-clock time; of a run that went on from a checkpoint also what was spent until that.
        peak_memory_mib: Highest memory so far: of the device if it is a GPU, else of the process.
        tokens: Concept tokens that were found on the way (robust).
    """

    unet: UNet2DConditionModel
    losses: list[float]
    erase_losses: list[float]
    retain_losses: list[float]
    num_trainable: int
    first_step: int = 0
    seconds: float = 0.0
    peak_memory_mib: float = 0.0
    tokens: list[ConceptToken] = field(default_factory=list)


@dataclass
class TrainingState:
    """All that changes while a student trains; what a checkpoint holds.

    Attributes:
        student: The trained copy; what is not trained is the original's own memory.
        params: Its trainable parameters, in the order of their names.
        optimizer: AdamW over `params`.
        teacher: Moving average of the student, if the method has one.
        average: The teacher's parameters, in the order of `params`.
        losses: For each step done a tensor [total, erase, retain].
        bank: Training points in use, as plain tensors.
        started: When it would have begun, on the monotonic clock, had it not been interrupted.
    """

    student: UNet2DConditionModel
    params: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    teacher: UNet2DConditionModel | None = None
    average: list[Tensor] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    bank: dict[str, Tensor] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def num_steps_done(self) -> int:
        """Optimizer steps taken so far."""
        return len(self.losses)


def start_training(unet: UNet2DConditionModel, config: EraseConfig, *, has_teacher: bool) -> TrainingState:
    """A student that starts as `unet`, with only the configured weights trainable. `unet` itself is left alone."""
    names = {name for name, _ in unet.named_parameters() if is_trainable(name, config.trainable)}
    if not names:
        raise InvalidInputError(f"The model has no {config.trainable} weights: choose another set with --trainable.")
    student = copy_sharing_frozen(unet, names)
    params = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=config.learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
    if not has_teacher:
        return TrainingState(student, params, optimizer)
    teacher = copy_sharing_frozen(unet, names)
    average = [parameter.detach() for parameter in teacher.parameters() if parameter.requires_grad]
    return TrainingState(student, params, optimizer, teacher.requires_grad_(False), average)


def copy_sharing_frozen(unet: UNet2DConditionModel, trainable: set[str]) -> UNet2DConditionModel:
    """A copy whose named parameters are its own and trainable; all others are frozen and share the original's memory.

    So a student of the cross-attention of Stable Diffusion 1.5 costs 0.2 GiB instead of 3.4.
    """
    memo: dict[int, Any] = {}
    for name, parameter in unet.named_parameters():
        values = parameter.detach().clone() if name in trainable else parameter.detach()
        memo[id(parameter)] = nn.Parameter(values, requires_grad=name in trainable)
    # no dropout: student and reference must differ by weights alone
    return copy.deepcopy(unet, memo).train(False)


def update_average_(average: Sequence[Tensor], params: Sequence[Tensor], decay: float) -> None:
    """average <- decay * average + (1 - decay) * params, in place."""
    torch._foreach_lerp_(list(average), [parameter.detach() for parameter in params], 1 - decay)


def average_decay(decay: float, step: int) -> float:
    """Decay at a step: short runs would otherwise keep half of the original's weights in the average.

    Source: min(decay, (1 + step) / (10 + step)), as in common implementations of EMA.
    """
    return min(decay, (1 + step) / (10 + step))


def loss_limit(losses: Sequence[Tensor], config: EraseConfig) -> float | Tensor:
    """The loss above which a step is not taken, by the loss of the first step; before it, anything finite is."""
    if not losses:
        return torch.finfo(torch.float32).max
    return (EXPLOSION_FACTOR * losses[0][0]).clamp_min(LOSS_OF_NOTHING * (1 + config.retain_weight))


def take_step_(state: TrainingState, loss: Tensor, parts: Sequence[Tensor], config: EraseConfig) -> None:
    """Backward, mean over the processes that train together, clip, optimizer step and average, without a host sync.

    A loss that is not finite, or has exploded, changes nothing.
    """
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    losses = torch.stack([loss.detach(), *(part.detach() for part in parts)])
    average_([losses, *(parameter.grad for parameter in state.params if parameter.grad is not None)])
    nn.utils.clip_grad_norm_(state.params, config.max_gradient_norm)
    # the fused kernel then skips its step; a comparison with NaN is false
    state.optimizer.found_inf = (~(losses[0] <= loss_limit(state.losses, config))).float()
    state.optimizer.step()
    if state.average:
        update_average_(state.average, state.params, average_decay(config.ema_decay, state.num_steps_done))
    state.losses.append(losses)


def check_losses(state: TrainingState, config: EraseConfig) -> dict[str, float]:
    """The one host sync of an interval: its mean losses; raise for the first step whose loss was not finite, or
    exploded.
    """
    first = max(0, state.num_steps_done - LOG_EVERY_N_STEPS)
    limit = float(loss_limit(state.losses, config))
    rows = torch.stack(state.losses[first:]).tolist()
    for offset, (value, *_) in enumerate(rows):
        if not math.isfinite(value) or value > limit:
            raise TrainingDivergedError(
                "erase", step=first + offset, seed=config.seed, loss=value, settings=changed_settings(config)
            )
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return dict(zip(LOSS_NAMES, means, strict=True))


def changed_settings(config: EraseConfig) -> str:
    """The settings of a run that are not the defaults, and its learning rate."""
    defaults = type(config)().model_dump()
    kept = {k: v for k, v in config.model_dump().items() if v != defaults.get(k) or k in ("method", "learning_rate")}
    return ", ".join(f"{name}={value}" for name, value in kept.items())


def after_step(
    state: TrainingState, step: int, config: EraseConfig, folder: Path | None, run: str, on_step: OnStep | None
) -> None:
    """The rare things behind a step: check the losses, keep a checkpoint, tell the caller."""
    is_last = step + 1 == config.num_train_steps
    is_kept = folder is not None and ((step + 1) % config.checkpoint_every_n_steps == 0 or is_last)
    losses: dict[str, float] = {}
    if (step + 1) % LOG_EVERY_N_STEPS == 0 or is_last or is_kept:
        losses = check_losses(state, config)
    if folder is not None and is_kept and is_first_part():
        save_checkpoint(state, folder, run)
    if on_step is not None:
        on_step(step + 1, config.num_train_steps, losses)
    look = _look.get()
    if look is not None:
        look(state)


_look: ContextVar[Callable[[TrainingState], None] | None] = ContextVar("look", default=None)


@contextmanager
def watching_training(look: Callable[[TrainingState], None]) -> Iterator[None]:
    """Show `look` the state after each step within the block, whichever method trains; it must change nothing of it."""
    token = _look.set(look)
    try:
        yield
    finally:
        _look.reset(token)


def build_result(state: TrainingState, first_step: int) -> EraseResult:
    """What came of a training: the teacher if there is one, else the student."""
    losses = torch.stack(state.losses).tolist() if state.losses else []
    state.optimizer.zero_grad(set_to_none=True)
    unet = copy.deepcopy(state.teacher if state.teacher is not None else state.student)
    return EraseResult(
        unet=unet.requires_grad_(False).eval(),
        losses=[total for total, _, _ in losses],
        erase_losses=[erase for _, erase, _ in losses],
        retain_losses=[retain for _, _, retain in losses],
        num_trainable=sum(parameter.numel() for parameter in state.params),
        first_step=first_step,
        seconds=time.monotonic() - state.started,
        peak_memory_mib=peak_memory_mib(unet.device),
    )


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
        "seconds": time.monotonic() - state.started,
    }
    unfinished = folder / f"{CHECKPOINT_NAME}.unfinished"
    torch.save(content, unfinished)
    os.replace(unfinished, folder / CHECKPOINT_NAME)


def restore_checkpoint_(state: TrainingState, folder: Path | None, run: str) -> int:
    """Go on from a checkpoint of the same run.

    Returns:
        Steps that were done; 0 if there is no checkpoint, or an unreadable one, or one of another run.
    """
    content = _read_checkpoint(folder, run, state.params[0].device)
    if not is_so_everywhere(content is not None) or content is None:
        return 0
    with torch.no_grad():
        for targets, values in ((state.params, content["params"]), (state.average, content["average"])):
            for target, value in zip(targets, values, strict=True):
                target.copy_(value)
    state.optimizer.load_state_dict(content["optimizer"])
    state.losses = list(content["losses"])
    state.bank = content["bank"]
    state.started = time.monotonic() - content["seconds"]
    return state.num_steps_done


def _read_checkpoint(folder: Path | None, run: str, device: torch.device) -> dict[str, Any] | None:
    """A checkpoint of this run; None if there is none, or an unreadable one."""
    path = folder / CHECKPOINT_NAME if folder is not None else None
    if path is None or not path.is_file():
        return None
    try:
        content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, OSError, LookupError, ValueError, pickle.UnpicklingError):  # cut off by the disk
        return None
    return content if content["run"] == run else None


def peak_memory_mib(device: torch.device | None = None) -> float:
    """Highest memory so far in MiB: allocated on a GPU, else resident in this process."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
