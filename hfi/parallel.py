"""Data-parallel training: several processes, each with its part of every batch, agree on every step.

All of them draw the same batch from the same seed; each takes every n-th row of it, and gradients and losses are
averaged before the step. So all take the same step, and it is that of a single process with the whole batch, up to the
rounding of a sum in another order. Outside of `training_together` every function here does nothing, at no cost.

`hfi.jobs.sharing` joins the processes of a launch; this module only asks `torch.distributed` who is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, distributed

from hfi.errors import InvalidInputError

_is_together: ContextVar[bool] = ContextVar("is_together", default=False)


@contextmanager
def training_together() -> Iterator[None]:
    """Within the block the processes that have joined share every batch; all of them must enter it."""
    token = _is_together.set(True)
    try:
        yield
    finally:
        _is_together.reset(token)


def num_parts() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if _is_joined() else 1


def part_number() -> int:
    """Which of them this one is, from 0 on."""
    return distributed.get_rank() if _is_joined() else 0


def is_first_part() -> bool:
    """Whether this process writes checkpoints and tokens."""
    return part_number() == 0


def own_part(batch: Tensor, dim: int = 0) -> Tensor:
    """This process's rows of a batch: every n-th one.

    Raises:
        InvalidInputError: the rows don't come out even.
    """
    parts, size = num_parts(), batch.shape[dim]
    if size % parts:
        raise InvalidInputError(
            f"A batch of {size} cannot be shared evenly by {parts} processes: choose --batch-size (or "
            f"--retain-batch-size) as a multiple of {parts}, or fewer processes."
        )
    if parts == 1:
        return batch
    return batch.index_select(dim, torch.arange(part_number(), size, parts, device=batch.device))


def average_(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over all processes; what is not finite in one is not finite in any."""
    if num_parts() == 1:
        return
    for waiting in [distributed.all_reduce(tensor, async_op=True) for tensor in tensors]:
        waiting.wait()
    torch._foreach_div_(list(tensors), num_parts())


def share_chunks(num_chunks: int) -> range:
    """Which of so many pieces of work are this process's; `gather_` brings the results together."""
    return range(part_number(), num_chunks, num_parts())


def gather_(results: Tensor) -> Tensor:
    """Results of all processes, each of which left zeros where the others worked."""
    if num_parts() > 1:
        distributed.all_reduce(results)
    return results


def is_so_everywhere(condition: bool) -> bool:
    """Whether something holds in every process, such as: this checkpoint could be read."""
    if num_parts() == 1:
        return condition
    is_so = torch.tensor([int(condition)])
    distributed.all_reduce(is_so, distributed.ReduceOp.MIN)
    return bool(is_so.item())


def _is_joined() -> bool:
    return _is_together.get() and distributed.is_available() and distributed.is_initialized()
