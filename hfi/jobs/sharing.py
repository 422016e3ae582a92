"""Work shared among the processes of one launch (`accelerate launch --num_processes N`, `torchrun`).

Pictures: each process makes every n-th one and stores it, and waits until the store has all of them. Nothing is sent
between the processes, and what is made is the same as by one process, because a request gives the same picture whatever
it is made beside. Trainings: the processes join (`training_together`) and share every batch, see `hfi.parallel`.

The first process records the run; the others do the same work, record nothing, and wait for that run.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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


@contextmanager
def training_together() -> Iterator[None]:
    """Join the processes of this launch, so that within the block they share every batch; alone, do nothing."""
    if num_processes() == 1:
        yield
        return
    from hfi import parallel

    _join()
    with parallel.training_together():
        yield


def _join() -> None:
    """Meet the other processes, once in the life of each: a second meeting would find the first one's addresses."""
    import torch
    from torch import distributed

    if not distributed.is_initialized():
        use_own_device()
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(distributed.destroy_process_group)


def wait_for(find: Callable[[], T | None]) -> T:
    """Wait for what another process makes; the launcher ends all of them when one fails."""
    while (found := find()) is None:
        time.sleep(LOOK_EVERY_SECONDS)
    return found
