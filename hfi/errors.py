"""The errors of models, jobs and the command line, on top of the tree in `storage.errors`; all are `HFIError`.

HFIError
├── InvalidInputError             a value breaks a stated rule (storage)
│   ├── ConfigError               an option or a field of a configuration
│   ├── PromptFileError           a prompt file that is not text, not UTF-8 or of the wrong shape
│   │   └── EmptyPromptListError  no prompt to make a picture of
│   ├── NoFlaggedImagesError      nobody flagged anything: there is no concept to learn
│   ├── OneSidedLabelsError       every image has the same label: there is nothing to tell apart
│   └── UnknownTokenError         a placeholder that the tokenizer or the artifact does not have
├── ModelFolderError              a model folder that is missing, lacks a part, or is of a family we cannot load
├── TrainingDivergedError         a loss that is not finite or exploded; names step, seed, stage and settings
├── WeakTokenError                a concept token that does not reproduce its concept; it must not erase anything
├── JobStoppedError               a stage ended before it finished because it was asked to
├── QueueError                    the queue of jobs cannot be reached or refuses a row
├── DeviceError                   a GPU that is not there, or without enough memory
└── ...                           NotFoundError, NoSpaceError, StoreTooNewError and others of `storage.errors`

Importing this module never imports torch. Every message names the input, the rule it broke and the remedy.
"""

from __future__ import annotations

from storage.errors import (
    ConflictError,
    HFIError,
    ImageRefusedError,
    InvalidInputError,
    LeaseError,
    NoSpaceError,
    NotFoundError,
    QuarantinedError,
    StoreBusyError,
    StoreDamagedError,
    StoreReadOnlyError,
    StoreTooNewError,
)

__all__ = [
    "HFIError",
    "InvalidInputError",
    "ConfigError",
    "PromptFileError",
    "EmptyPromptListError",
    "NoFlaggedImagesError",
    "OneSidedLabelsError",
    "UnknownTokenError",
    "ModelFolderError",
    "TrainingDivergedError",
    "WeakTokenError",
    "JobStoppedError",
    "DeviceError",
    "QueueError",
    "ConflictError",
    "ImageRefusedError",
    "LeaseError",
    "NoSpaceError",
    "NotFoundError",
    "QuarantinedError",
    "StoreBusyError",
    "StoreDamagedError",
    "StoreReadOnlyError",
    "StoreTooNewError",
]


class ConfigError(InvalidInputError):
    """An option or a field of a configuration breaks its rule; the command line treats it as wrong usage."""


class PromptFileError(InvalidInputError):
    """A prompt file that is not text, is not UTF-8 or has the wrong shape."""


class EmptyPromptListError(PromptFileError):
    """There is no prompt to make a picture of."""


class NoFlaggedImagesError(InvalidInputError):
    """Nobody flagged anything, so there is no concept to learn or erase."""


class OneSidedLabelsError(InvalidInputError):
    """Every image has the same label, so a score model has nothing to tell apart."""


class UnknownTokenError(InvalidInputError):
    """A placeholder token that the tokenizer or the artifact does not have."""


class ModelFolderError(HFIError):
    """A model folder that is missing, lacks a part, or is of a family we cannot load."""

    http_status = 422


class TrainingDivergedError(HFIError):
    """A loss that is not finite or has exploded, found before the optimizer's step."""

    http_status = 500

    def __init__(self, stage: str, *, step: int, seed: int, loss: float, settings: str = "") -> None:
        """Say where the training stopped and what to try.

        Args:
            stage: What was being trained, e.g. `erase`.
            step: Optimizer step (0-based) whose loss was not finite.
            seed: Seed of the run, so that it can be made again.
            loss: The value.
            settings: What the run was asked for, in words.
        """
        asked = f" with {settings}" if settings else ""
        super().__init__(
            f"Training of '{stage}' stopped: the loss was {loss} at step {step} (seed {seed}){asked}; nothing of this "
            f"step was kept. Lower --learning-rate and start again."
        )
        self.stage, self.step, self.seed, self.loss = stage, step, seed, loss


class WeakTokenError(HFIError):
    """A concept token that does not reproduce its concept must not erase anything."""

    http_status = 409


class JobStoppedError(HFIError):
    """A stage ended before it finished because it was asked to; the same command goes on from there."""

    http_status = 409


class QueueError(HFIError):
    """The queue of jobs cannot be reached, or a row of it is not what we wrote."""

    http_status = 503


class DeviceError(HFIError):
    """A GPU that is not there, or one without enough memory."""

    http_status = 503
