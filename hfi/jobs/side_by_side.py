"""Evaluations of a project side by side, for the pages: one table a protocol, pictures by their hash, nothing loaded.

Importing this module never imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfi.evaluate.compare import Comparison, compare_results
from hfi.evaluate.protocol import EvaluationResult, differences, read_result
from hfi.evaluate.sentences import five_sentences
from hfi.jobs.compare import attacks_on, describe_run
from hfi.jobs.evaluate import EVALUATION_ARTIFACT
from hfi.mini.concepts import words_of_concept
from storage import Store
from storage.errors import NotFoundError
from storage.records import Run

NUM_GRID_ROWS = 4  # of each part of the suite
QUESTION_OF_PART = {"concept": "shows_concept", "others": "is_right"}


@dataclass(frozen=True)
class ModelCost:
    """What making one model cost; None = not known (it was not made here)."""

    seconds: float | None = None
    peak_memory_mib: float | None = None


@dataclass(frozen=True)
class GridPicture:
    """One picture of a grid; `verdict`: what the detector answers to the part's question, None = not known."""

    sha256: str
    verdict: bool | None


@dataclass(frozen=True)
class GridRow:
    """The same words and seed by every model of a table, in the order of its rows."""

    prompt: str
    seed: int
    is_concept: bool
    pictures: tuple[GridPicture, ...]


@dataclass(frozen=True)
class ProtocolTable:
    """All that was measured by one protocol: its numbers may be compared.

    Args:
        name, sha256: of the protocol.
        group: what the suite asks for, "" when nobody named it.
        runs: the evaluation of each row but the first, which is the original.
        costs: one a row.
        differs: how the protocol differs from that of the first table.
    """

    name: str
    sha256: str
    group: str
    comparison: Comparison
    runs: tuple[Run, ...]
    costs: tuple[ModelCost, ...]
    grid: tuple[GridRow, ...]
    confidence: float = 0.95
    differs: tuple[str, ...] = ()


def list_evaluations(store: Store, project: str) -> list[Run]:
    """The finished evaluations of a project, newest first."""
    runs = store.list_runs(kind="evaluate", status="done")
    return [run for run in reversed(runs) if run.config.get("project") == project]


def newest_of_each_model(evaluations: Sequence[Run]) -> list[Run]:
    """The newest evaluation of every model by every protocol, oldest first, as they were made."""
    found: dict[tuple[str, str], Run] = {}
    for run in evaluations:  # newest first
        found.setdefault((str(run.metrics.get("erased_run") or run.id), str(run.metrics.get("protocol", ""))), run)
    return list(reversed(found.values()))


def list_erasures(store: Store, project: str) -> list[Run]:
    """The changed models of a project, newest first."""
    runs = store.list_runs(kind="erase", status="done")
    return [run for run in reversed(runs) if run.config.get("project") == project]


def describe_erasure(run: Run) -> str:
    """A changed model in a few words: method, targets, steps, run."""
    config = run.config.get("config", {})
    steps = run.metrics.get("steps")
    told = f", {steps} steps" if steps and config.get("method") != "closed_form" else ""
    return f"{config.get('method', 'erased')}, {config.get('targets', '')}{told} ({run.id})"


def build_tables(store: Store, project: str, run_ids: Sequence[str]) -> list[ProtocolTable]:
    """One table for each protocol among the evaluations; the protocol with most of them first.

    Raises:
        NotFoundError: a run is no evaluation of the project.
    """
    by_protocol: dict[str, list[tuple[Run, EvaluationResult]]] = {}
    for run_id in run_ids:
        run = find_evaluation(store, project, run_id)
        result = read_result(Path(store.artifact_dir(run.id)) / EVALUATION_ARTIFACT)
        by_protocol.setdefault(result.protocol_sha256, []).append((run, result))
    groups = sorted(by_protocol.values(), key=len, reverse=True)
    first = groups[0][0][1].protocol if groups else None
    return [
        _build_table(store, group, tuple(differences(first, group[0][1].protocol)) if first else ()) for group in groups
    ]


def find_evaluation(store: Store, project: str, run_id: str) -> Run:
    """A finished evaluation of a project.

    Raises:
        NotFoundError: there is none of that id.
    """
    run = store.get_run(run_id)
    if run.kind != "evaluate" or run.status != "done" or (project and run.config.get("project") != project):
        raise NotFoundError(f"Run {run_id!r} is no evaluation of project {project!r}. Choose one from the list.")
    return run


def _build_table(
    store: Store, group: Sequence[tuple[Run, EvaluationResult]], differs: tuple[str, ...]
) -> ProtocolTable:
    named = [(describe_run(store, run), result) for run, result in group]
    attacks = {name: attacks_on(store, result) for name, result in named}
    comparison = compare_results(named, attacks)
    first = group[0][1]
    sentences = five_sentences(comparison, words_of_concept(first.group).one) if len(group) > 1 else ()
    return ProtocolTable(
        name=first.protocol.name,
        sha256=first.protocol_sha256,
        group=first.group,
        comparison=Comparison(
            comparison.columns, comparison.rows, comparison.protocol, comparison.warnings, sentences, attacks
        ),
        runs=tuple(run for run, _ in group),
        costs=(ModelCost(), *(_cost_of(store, run) for run, _ in group)),
        grid=grid_rows([result for _, result in group]),
        confidence=first.protocol.confidence,
        differs=differs,
    )


def _cost_of(store: Store, evaluation: Run) -> ModelCost:
    """Seconds and memory of the erasure that was evaluated."""
    erased = evaluation.metrics.get("erased_run")
    if not erased:
        return ModelCost()
    run = store.get_run(erased)
    seconds, memory = run.metrics.get("erase_seconds", run.seconds), run.metrics.get("erase_peak_memory_mib")
    return ModelCost(seconds, memory if memory is not None else run.peak_memory_mib)


def grid_rows(results: Sequence[EvaluationResult], num_rows: int = NUM_GRID_ROWS) -> tuple[GridRow, ...]:
    """Pictures of the original and each changed model at even distances of each part: none is picked by its result."""
    sides: list[Sequence[Mapping[str, Any]]] = [results[0].pictures.get("before", [])]
    sides += [result.pictures.get("after", []) for result in results]
    asked = [[(row["part"], row["prompt"], row["seed"]) for row in side] for side in sides]
    if not asked[0] or any(other != asked[0] for other in asked[1:]):
        return ()
    rows = []
    for part, question in QUESTION_OF_PART.items():
        places = [place for place, key in enumerate(asked[0]) if key[0] == part]
        count = min(num_rows, len(places))
        for place in (places[i * len(places) // count] for i in range(count)):
            pictures = tuple(GridPicture(side[place]["image"], side[place].get(question)) for side in sides)
            rows.append(GridRow(asked[0][place][1], asked[0][place][2], part == "concept", pictures))
    return tuple(rows)
