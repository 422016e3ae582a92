"""Work shared among the processes of one launch (`accelerate launch --num_processes N`, `torchrun`).

Each process makes every n-th thing and stores it; the first one waits until the store has all of them and records the
run. Nothing is sent between the processes, so nothing depends on how long each of them takes, and what is made is the
same as by one process, because a request gives the same picture whatever it is made beside.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
LOOK_EVERY_SECONDS = 0.5


def num_processes() -> int:
    """How many processes share the work; the launcher says so in the environment."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_number() -> int:
    """Which of them this one is, from 0 on."""
    return int(os.environ.get("RANK", "0"))


def is_first_process() -> bool:
    """Whether this process records runs and results."""
    return process_number() == 0


def share_of(things: Sequence[T]) -> list[T]:
    """What this process makes of them."""
    return list(things[process_number() :: num_processes()])


def use_own_device() -> None:
    """Let this process use the GPU of its number."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def wait_for(find: Callable[[], T | None]) -> T:
    """Wait for what another process makes; the launcher ends all of them when one fails."""
    while (found := find()) is None:
        time.sleep(LOOK_EVERY_SECONDS)
    return found
