"""Evaluations of a store, or result files, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hfi.errors import NotFoundError
from hfi.evaluate.compare import Comparison, PictureRow, compare_results, render_comparison, write_comparison
from hfi.evaluate.protocol import EvaluationResult, read_result
from hfi.jobs.evaluate import EVALUATION_ARTIFACT
from storage import Store
from storage.errors import NotFoundError as StoreNotFoundError
from storage.records import Run

NUM_ROWS_SHOWN = 6  # of each part of the suite


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
    attacks = {name: attacks_on(store, result) for name, result in chosen} if store else {}
    comparison = compare_results(chosen, attacks, allow_different_protocols=allow_different_protocols)
    write_comparison(out, comparison, picture_rows(store, [result for _, result in chosen]) if store else ())
    return comparison


def compare_html(store: Store, names: Sequence[str]) -> str:
    """Evaluations side by side as one self-contained HTML text; different protocols are named in it."""
    chosen = [_named(store, name) for name in names]
    attacks = {name: attacks_on(store, result) for name, result in chosen}
    comparison = compare_results(chosen, attacks, allow_different_protocols=True)
    return render_comparison(comparison, picture_rows(store, [result for _, result in chosen]))


def picture_rows(store: Store, results: Sequence[EvaluationResult]) -> list[PictureRow]:
    """Pictures of the original and each changed model at even distances of each part of the suite.

    None where the evaluations did not draw the same prompts and seeds, or a picture is not in this store.
    """
    sides = [results[0].pictures.get("before", []), *(result.pictures.get("after", []) for result in results)]
    asked = [[(row["part"], row["prompt"], row["seed"]) for row in side] for side in sides]
    if not asked[0] or any(other != asked[0] for other in asked[1:]):
        return []
    rows = []
    for part in ("concept", "others"):
        places = [place for place, key in enumerate(asked[0]) if key[0] == part]
        for i in range(min(NUM_ROWS_SHOWN, len(places))):
            place = places[i * len(places) // min(NUM_ROWS_SHOWN, len(places))]
            try:
                pictures = tuple(store.load_image(side[place]["image"]) for side in sides)
            except StoreNotFoundError:
                return []
            # a blur too many does no harm: the table may join projects, and one of them may be sensitive
            is_veiled = part == "concept" and any(project.is_sensitive for project in store.list_projects())
            rows.append(PictureRow(asked[0][place][1], asked[0][place][2], pictures, is_veiled))
    return rows


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
    erased, guard = evaluation.metrics.get("erased_run"), evaluation.metrics.get("guard")
    if guard:
        return f"{guard['kind']}: {guard['guard_text']} ({evaluation.id})"
    if not erased:
        return f"run {evaluation.id}"
    config = store.get_run(erased).config["config"]
    return f"{config['method']}, {config['targets']} ({erased})"


def attacks_on(store: Store, result: EvaluationResult) -> dict[str, dict[str, Any]]:
    """Figures of the newest attack of each kind on this very model, for the concept that was measured."""
    found = {}
    for run in store.list_runs(kind="attack", status="done"):
        suite = run.metrics.get("suite", result.protocol.suite)  # older runs do not tell it
        if run.metrics.get("model_sha256") == result.models.get("after", "") and suite == result.protocol.suite:
            found[run.metrics["attack"]] = dict(run.metrics)
    return found
