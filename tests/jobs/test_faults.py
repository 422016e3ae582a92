"""Two rounds of the fault drill in tests/faults/job_faults.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.job_faults import run_rounds


@pytest.mark.thorough
def test_jobs_survive_a_killed_worker_and_a_killed_job(tmp_path: Path) -> None:
    result = run_rounds(tmp_path, 2, num_jobs=3, faults=("kill worker", "kill job"))
    assert result["findings"] == []
    assert result["jobs"] == {"done": 3}
