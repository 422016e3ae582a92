"""Every eraser behind one function."""

from __future__ import annotations

from pathlib import Path

from hfi.config import EraseConfig
from hfi.erase.concept import Concept, as_concept
from hfi.erase.robust import ERASERS, count_robust_steps, erase_robust, steps_of_erasure
from hfi.erase.training import EraseResult, OnStep
from hfi.inversion.tokens import ConceptToken
from hfi.pipelines import Pipeline, computing_in


def count_steps(config: EraseConfig) -> int:
    """Steps that `on_step` will count, those of inversions included."""
    return count_robust_steps(config) if config.method == "robust" else steps_of_erasure(config.method, config)


def erase(
    pipeline: Pipeline,
    concept: Concept | ConceptToken | str,
    config: EraseConfig,
    on_step: OnStep | None = None,
    *,
    checkpoint_dir: str | Path | None = None,
) -> EraseResult:
    """Erase a concept from a copy of the pipeline's UNet by `config.method`. The pipeline itself is left as it was.

    Args:
        pipeline: The original; nothing of it changes.
        concept: Words, a concept token, or all that is known of the concept. Words and tokens have no pictures, so they
            need `latents="rollout"`, or the closed form.
        config: Method and settings; `targets`, `text` and `retain_text` are for the command line, the concept says it.
        on_step: Called after each step with (num_steps_done, num_steps, newest losses by name, every few steps).
        checkpoint_dir: Where checkpoints are kept. A run with the same inputs goes on from the last one, to the same
            weights as an uninterrupted run.

    Raises:
        InvalidInputError: The concept cannot be erased as asked.
        TrainingDivergedError: The loss is not finite, or exploded; nothing of that step was kept.
    """
    eraser = erase_robust if config.method == "robust" else ERASERS[config.method]
    with computing_in(config.precision):
        return eraser(pipeline, as_concept(concept), config, on_step, checkpoint_dir=checkpoint_dir)
