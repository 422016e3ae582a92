"""The feedback store. ``from storage import Store``; torch-free, and quick to import."""

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    """Load the store itself only when it is asked for: sqlite-utils brings pandas along, half a second of it."""
    if name == "Store":
        from storage.store import Store

        return Store
    raise AttributeError(f"module 'storage' has no attribute {name!r}")
