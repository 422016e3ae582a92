"""Evaluations of a store, or result files, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfi.errors import NotFoundError
from hfi.evaluate.compare import Comparison, compare_results, write_comparison
from hfi.evaluate.protocol import EvaluationResult, read_result
from hfi.jobs.evaluate import EVALUATION_ARTIFACT
from storage import Store
from storage.errors import NotFoundError as StoreNotFoundError
from storage.records import Run


def run_compare(
    store: Store | None, names: Sequence[str], out: Path, *, allow_different_protocols: bool = False
) -> Comparison:
    """Write `compare.html`, `.json` and `.txt` about these evaluations.

    Args:
        store: where evaluations are found by their run ids; None = only files are meant.
        names: run ids of evaluations or of erasures, result files or their folders; `name=...` gives a row its name.
        out: folder for the files.
        allow_different_protocols: mark the table instead of refusing it.

    Raises:
        NotFoundError: one of the names means nothing.
        ConfigError: protocols differ.
    """
    chosen = [_named(store, name) for name in names]
    attacks = {name: attacks_on(store, result.models.get("after", "")) for name, result in chosen} if store else {}
    comparison = compare_results(chosen, attacks, allow_different_protocols=allow_different_protocols)
    write_comparison(out, comparison)
    return comparison


def _named(store: Store | None, text: str) -> tuple[str, EvaluationResult]:
    label, _, rest = text.rpartition("=")
    if Path(rest).exists():
        return label or Path(rest).name, read_result(Path(rest))
    run = evaluation_of(store, rest) if store else None
    if run is None or store is None:
        raise NotFoundError(
            f"{rest!r} is neither a result file nor a run with an evaluation: run `hfi evaluate` first."
        )
    return label or describe_run(store, run), read_result(store.artifact_dir(run.id) / EVALUATION_ARTIFACT)


def evaluation_of(store: Store, run_id: str) -> Run | None:
    """The evaluation of that id, or the newest evaluation of that erasure."""
    try:
        run = store.get_run(run_id)
    except StoreNotFoundError:
        return None
    if run.kind == "evaluate" and run.status == "done":
        return run
    found = [r for r in store.list_runs(kind="evaluate", status="done") if r.metrics.get("erased_run") == run.id]
    return found[-1] if found else None


def describe_run(store: Store, evaluation: Run) -> str:
    """A row's name: method and targets of the erasure that was evaluated, and its run."""
    erased = evaluation.metrics.get("erased_run")
    if not erased:
        return f"run {evaluation.id}"
    config = store.get_run(erased).config["config"]
    return f"{config['method']}, {config['targets']} ({erased})"


def attacks_on(store: Store, model_sha256: str) -> dict[str, dict[str, Any]]:
    """Figures of the newest attack of each kind on this very model."""
    found = {}
    for run in store.list_runs(kind="attack", status="done"):
        if run.metrics.get("model_sha256") == model_sha256:
            found[run.metrics["attack"]] = dict(run.metrics)
    return found
