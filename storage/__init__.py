"""The feedback store. ``from storage import Store``; torch-free, and quick to import."""

from storage.errors import HFIError
from storage.records import (
    Assignment,
    GenerationParams,
    ItemInput,
    JudgmentInput,
    JudgmentRecord,
    Project,
    Run,
    Snapshot,
    SnapshotImage,
    User,
    config_hash,
)
from storage.store import Store

__all__ = [
    "Assignment",
    "GenerationParams",
    "HFIError",
    "ItemInput",
    "JudgmentInput",
    "JudgmentRecord",
    "Project",
    "Run",
    "Snapshot",
    "SnapshotImage",
    "Store",
    "User",
    "config_hash",
]
