"""All methods x all measures in one document: erase what is missing, evaluate, attack, and write the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from hfi.config import AttackConfig, EraseConfig, EvaluateConfig
from hfi.errors import ConfigError, HFIError
from hfi.evaluate.compare import Comparison, PictureRow, compare_results, to_markdown, write_comparison
from hfi.evaluate.protocol import EvaluationResult, read_result
from hfi.evaluate.sentences import five_sentences
from hfi.files import write_text_atomically
from hfi.jobs.attack import run_attack
from hfi.jobs.compare import attacks_on, describe_run, picture_rows
from hfi.jobs.erase import run_erase
from hfi.jobs.evaluate import EVALUATION_ARTIFACT, run_evaluate
from hfi.progress import Progress
from storage import Store

TITLE = "# Results: all methods, all measures, on the embedded model\n"


def erase_methods() -> tuple[str, ...]:
    """The erasers there are."""
    return tuple(get_args(EraseConfig.model_fields["method"].annotation))


def run_results(
    store: Store,
    project: str,
    out: Path,
    progress: Progress,
    *,
    erase: EraseConfig,
    evaluate: EvaluateConfig,
    attack: AttackConfig | None,
    methods: Sequence[str] = (),
    runs: Sequence[str] = (),
    command: str = "hfi results",
) -> tuple[Comparison, list[str]]:
    """Write `out` (Markdown), and beside it `compare.html`, `.json`, `.txt`.

    Everything that is done already is taken as it is, so the same command goes on where it was stopped.

    Args:
        store: where everything is.
        project: a project with a score model and, where tokens are targets, with tokens.
        erase: what all methods share; each method keeps its own options at their defaults.
        evaluate: the protocol.
        attack: budgets of the attacks; None = nobody attacks.
        methods: erasers to run; () and no runs = all there are.
        runs: erasures that are there already.
        command: what was typed, for the document.

    Returns:
        The table, and a sentence for each method that failed: one failure does not cost the others.

    Raises:
        ConfigError: a method is unknown, or none could be measured.
    """
    unknown = [name for name in methods if name not in erase_methods()]
    if unknown:
        raise ConfigError(
            f"--methods has {', '.join(unknown)}, but must be of {', '.join(erase_methods())}, by commas."
        )
    erased, failures = list(runs), []
    for method in methods or (() if runs else erase_methods()):
        try:
            config = EraseConfig.model_validate(erase.model_dump(exclude_unset=True) | {"method": method})
            erased.append(run_erase(store, config, project, progress).run.id)
        except (HFIError, ValueError) as error:
            failures.append(f"{method}: {error}")
    results, attacks = [], {}
    for run_id in erased:
        try:
            name, result = _evaluated(store, project, run_id, evaluate, progress)
            if attack is not None:
                run_attack(store, attack.model_copy(update={"erased": run_id}), project, progress)
        except HFIError as error:
            failures.append(f"{run_id}: {error}")
            continue
        results.append((name, result))
        attacks[name] = attacks_on(store, result.models["after"])
    if not results:
        raise ConfigError(f"No method could be measured: {'; '.join(failures)}")
    comparison = compare_results(results, attacks)
    concept = f"a {results[0][1].group}" if results[0][1].group else "the concept"
    comparison = replace(comparison, sentences=five_sentences(comparison, concept))
    _write(out, comparison, failures, command, picture_rows(store, [result for _, result in results]))
    return comparison, failures


def _evaluated(
    store: Store, project: str, run_id: str, config: EvaluateConfig, progress: Progress
) -> tuple[str, EvaluationResult]:
    done = run_evaluate(store, config.model_copy(update={"erased": run_id}), project, progress)
    result = read_result(store.artifact_dir(done.run.id) / EVALUATION_ARTIFACT)
    return describe_run(store, done.run), result


def _write(
    out: Path, comparison: Comparison, failures: Sequence[str], command: str, pictures: Sequence[PictureRow]
) -> None:
    budgets = {
        figures["title"]: f"{figures['budget']}. {figures['note']}"
        for found in comparison.attacks.values()
        for figures in found.values()
    }
    parts = [TITLE, f"Made by `{command}`.\n", to_markdown(comparison)]
    if budgets:
        parts.append("Attacks, each with its budget; rates are those with the attack:\n")
        parts += [f"- {title}: {text}" for title, text in budgets.items()]
    if failures:
        parts.append("\nNot measured:\n")
        parts += [f"- {failure}" for failure in failures]
    write_text_atomically(out, "\n".join(parts) + "\n")
    write_comparison(out.parent if out.parent.name != "docs" else out.parent / "results", comparison, pictures)
