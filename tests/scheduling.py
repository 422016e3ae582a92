"""Which tests go to a worker together, and in which order: the longest begin first, so that no worker waits for them.

pytest-xdist by itself begins with the files that have most tests; here the longest have few.
"""

from __future__ import annotations

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

# One server and one browser serve all of these.
TOGETHER = ("tests/browser/",)
# By processor time, as in docs/LOG.md; what is not named here takes less and comes in the order of its name.
COSTLIEST_FIRST = (
    "tests/browser/",
    "tests/test_loop.py",
    "tests/jobs/test_sharing.py",
    "tests/notebooks/",
    "tests/jobs/test_worker.py",
    "tests/jobs/test_faults.py",
    "tests/algorithms/test_erase",
    "tests/evaluate/test_evaluate_job.py",
    "tests/algorithms/test_inversion.py",
    "tests/ui/test_access.py",
    "tests/ui/test_serve.py",
    "tests/ui/test_faults.py",
    "tests/mini/",
    "tests/evaluate/",
    "tests/jobs/",
)


def sort_items(items: list[pytest.Item]) -> None:
    """Put the costliest first, in place; among the rest the order stays."""
    items.sort(key=lambda item: place_of(item.nodeid, COSTLIEST_FIRST))


class CostliestFirst(LoadScopeScheduling):
    """Files stay whole, those of TOGETHER are one; they are begun in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        place = place_of(nodeid, TOGETHER)
        return TOGETHER[place] if place < len(TOGETHER) else nodeid.partition("::")[0]


def place_of(nodeid: str, starts: tuple[str, ...]) -> int:
    """The first of these texts that a test's id starts with; their number when none does."""
    return next((place for place, start in enumerate(starts) if nodeid.startswith(start)), len(starts))
