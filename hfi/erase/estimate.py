"""What an erasure will cost: a few steps of it, timed, and counted up to the whole."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass

from hfi.config import EraseConfig
from hfi.erase.bank import steps_in_bank
from hfi.erase.concept import Concept, as_concept
from hfi.erase.methods import count_steps, erase
from hfi.erase.training import peak_memory_mib
from hfi.inversion.tokens import ConceptToken
from hfi.pipelines import Pipeline

PROBE_STEPS = 3  # the first makes a bank, the others are plain


@dataclass(frozen=True)
class Estimate:
    """Expected cost of an erasure, from a probe.

    Attributes:
        seconds: Wall-clock time of the whole erasure; without loading and saving the model.
        peak_memory_mib: Highest memory: of the device if it is a GPU, else of the process.
        num_steps: Steps in all, those of inversions included.
        probe_seconds: What the probe took.
    """

    seconds: float
    peak_memory_mib: float
    num_steps: int
    probe_seconds: float

    def __str__(self) -> str:
        """One sentence for people."""
        return (
            f"About {self.seconds:,.0f} seconds for {self.num_steps} steps and {self.peak_memory_mib:,.0f} MiB of "
            f"memory (from a probe of {self.probe_seconds:.1f} seconds)."
        )


def estimate(pipeline: Pipeline, concept: Concept | ConceptToken | str, config: EraseConfig) -> Estimate:
    """Probe an erasure: three steps with the smallest bank; nothing is kept of them.

    The closed form is run as it is, since it takes seconds.

    Args and errors are those of `hfi.erase.erase`.
    """
    started, ticks = time.monotonic(), [time.monotonic()]
    probe = {"num_train_steps": PROBE_STEPS, "bank_batches": 1, "bank_passes": PROBE_STEPS}
    if config.method == "robust":
        probe |= {"robust_rounds": min(2, config.robust_rounds), "robust_invert_steps": PROBE_STEPS}
    small = config.model_copy(update=probe)
    erase(pipeline, as_concept(concept), small, lambda _done, _total, _losses: ticks.append(time.monotonic()))
    seconds = [after - before for before, after in itertools.pairwise(ticks)]
    total = expected_seconds(seconds, config)
    return Estimate(
        seconds=total,
        peak_memory_mib=peak_memory_mib(pipeline.unet.device),
        num_steps=count_steps(config),
        probe_seconds=time.monotonic() - started,
    )


def expected_seconds(probe: list[float], config: EraseConfig) -> float:
    """Seconds of the whole from those of each step of the probe; the first step's surplus is a bank of one batch."""
    inner = config.robust_method if config.method == "robust" else config.method
    if inner == "closed_form":
        per_round, rest = sum(probe[: config.closed_form_rounds + 1]), probe[config.closed_form_rounds + 1 :]
    else:
        step = sum(probe[1:PROBE_STEPS]) / max(1, len(probe[1:PROBE_STEPS]))
        bank = max(0.0, probe[0] - step) * config.bank_batches
        num_banks = math.ceil(config.num_train_steps / steps_in_bank(config))
        per_round, rest = num_banks * bank + config.num_train_steps * step, probe[PROBE_STEPS:]
    if config.method != "robust":
        return per_round
    inversions = rest[:PROBE_STEPS]
    per_inversion = config.robust_invert_steps * sum(inversions) / max(1, len(inversions))
    return config.robust_rounds * per_round + (config.robust_rounds - 1) * per_inversion
