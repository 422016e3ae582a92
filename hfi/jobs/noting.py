"""A part that may fail without costing the others: its failure is noted under a label."""

from __future__ import annotations

from hfi.errors import HFIError


class Noting:
    """A block that catches what this program says of bad input and of failed runs; everything else goes on."""

    def __init__(self, failures: list[str], label: str) -> None:
        """Note into `failures`, as "label: what went wrong"."""
        self.failures, self.label = failures, label

    def __enter__(self) -> None:
        """Nothing is wrong yet."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        """Note the failure."""
        if not isinstance(error, (HFIError, ValueError)):
            return False
        self.failures.append(f"{self.label}: {error}")
        return True
