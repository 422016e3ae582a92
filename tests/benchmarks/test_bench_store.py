"""The store's benchmarks and long fault drills under `make bench`, each checked against what it must show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*words: str) -> list[dict[str, object]]:
    """Run a script of the repository; its lines of JSON."""
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    print(done.stdout)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.bench
def test_bench_throughput() -> None:
    singles, batches = run("tests/benchmarks/bench_store.py", "throughput")
    assert float(str(singles["ratio_same_writes"])) < 4
    assert int(str(batches["ours_per_second"])) > int(str(singles["ours_per_second"]))


@pytest.mark.bench
def test_bench_labels() -> None:
    assert float(str(run("tests/benchmarks/bench_store.py", "labels")[0]["cpu_seconds"])) < 60


@pytest.mark.bench
def test_bench_kill_writers() -> None:
    result = run("tests/faults/kill_writers.py", "--rounds", "100")[0]
    assert (result["lost"], result["duplicated"], result["integrity"]) == (0, 0, "ok")


@pytest.mark.bench
def test_bench_claim_race() -> None:
    result = run("tests/faults/claim_race.py", "--processes", "8", "--claims", "10000")[0]
    assert (result["slots"], result["slots_leased_twice"], result["errors"]) == (10_000, 0, 0)
