"""All methods x all targets x several runs in one document: make what is missing, evaluate, attack, write the table.

A cell of several runs is the mean over runs with an interval over runs and pictures (`hfi.evaluate.repeats` says how);
seconds are the mean over runs, memory is the highest of any, each erasure in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from hfi.config import AttackConfig, EraseConfig, EvaluateConfig, GenerateConfig
from hfi.errors import ConfigError
from hfi.evaluate.compare import Comparison, Cost, PictureRow, compare_results, to_markdown, write_comparison
from hfi.evaluate.metrics import Interval
from hfi.evaluate.protocol import EvaluationResult, read_result
from hfi.evaluate.repeats import share_over_runs
from hfi.evaluate.sentences import five_sentences
from hfi.files import write_text_atomically
from hfi.jobs.attack import run_attack
from hfi.jobs.compare import attacks_on, describe_run, picture_rows
from hfi.jobs.evaluate import EVALUATION_ARTIFACT, run_evaluate
from hfi.jobs.noting import Noting
from hfi.jobs.own_process import erase_in_own_process
from hfi.jobs.steering import KINDS, build_steering
from hfi.mini.concepts import words_of_concept
from hfi.progress import Progress
from storage import Store
from storage.records import Run

TITLE = "# Results: all methods, all measures, on the embedded model\n"
TARGETS: tuple[str, ...] = get_args(EraseConfig.model_fields["targets"].annotation)
SEEDLESS = ("closed_form", *KINDS)  # nothing of them is drawn at random, so one run says it all
STEERING_NOTE = (
    "neg and sld leave the weights as they are: they cost nothing beforehand; for each picture and step the network "
    "runs twice (neg, as without) or three times (sld). SLD's warm-up is shortened in proportion to the sampler's "
    "steps. Held back are, for tokens: all concept tokens; for prompts: the words that tell flagged prompts from the "
    "others, as many as the model reads; for both: tokens, then words. Nobody attacks them: who has the weights leaves "
    "them off."
)


@dataclass(frozen=True)
class ResultsPlan:
    """Which rows the table has, and how often each is run.

    Attributes:
        methods: Erasers and steering methods, each with every one of `targets`; `sdd:text` has its own instead, and
            `robust*1` is run for the first seed alone.
        targets: What is erased or held back, a row for each with each method.
        seeds: One run of each eraser that draws at random for each.
        text: The concept in words (targets = text).
        sld_level: SLD's published settings.
    """

    methods: Sequence[str] = ()
    targets: Sequence[str] = ("both",)
    seeds: Sequence[int] = (0,)
    text: str = ""
    sld_level: str = "medium"

    def __post_init__(self) -> None:
        """Refuse names that nobody knows."""
        rows = [_row_of(name) for name in self.methods]
        targets = [*self.targets, *(own for _, own, _ in rows if own is not None)]
        for option, names, known in (
            ("--methods", [method for method, _, _ in rows], all_methods()),
            ("--targets", targets, TARGETS),
        ):
            unknown = [name or "''" for name in names if name not in known]
            if unknown:
                raise ConfigError(f"{option} has {', '.join(unknown)}, but must be of {', '.join(known)}, by commas.")
        wrong = [
            name for name, (_, _, count) in zip(self.methods, rows, strict=True) if count is not None and count < 1
        ]
        if wrong:
            raise ConfigError(f"--methods has {', '.join(wrong)}, but behind * must be a whole number from 1 on.")
        if "text" in targets and not self.text.strip():
            raise ConfigError("--targets text needs words: give them with --text 'a weapon'.")

    def runs(self) -> Iterator[tuple[str, str, int]]:
        """(method, targets, seed) of every run: first all rows once, then all again with the next seed."""
        named = [_row_of(name) for name in self.methods]
        rows = [(method, targets, count) for targets in self.targets for method, own, count in named if own is None]
        rows += [(method, own, count) for method, own, count in named if own is not None]
        for place, seed in enumerate(self.seeds):
            for method, targets, count in rows:
                if place < (1 if method in SEEDLESS else count or len(self.seeds)):
                    yield method, targets, seed


def _row_of(name: str) -> tuple[str, str | None, int | None]:
    """A name of `--methods` as (method, targets of its own, number of runs); what is no number of runs is 0."""
    row, star, count = name.partition("*")
    method, colon, own = row.partition(":")
    num_runs = int(count) if count.isascii() and count.isdigit() else 0
    return method, own if colon else None, num_runs if star else None


@dataclass(frozen=True)
class _Measured:
    """One run: its name if it stands alone, what was measured, and what it took."""

    name: str
    result: EvaluationResult
    cost: Cost
    attacks: dict[str, Any]


def erase_methods() -> tuple[str, ...]:
    """The erasers there are."""
    return tuple(get_args(EraseConfig.model_fields["method"].annotation))


def all_methods() -> tuple[str, ...]:
    """The erasers, and the ways of steering without training."""
    return (*erase_methods(), *KINDS)


def run_results(
    store: Store,
    project: str,
    out: Path,
    progress: Progress,
    *,
    erase: EraseConfig,
    evaluate: EvaluateConfig,
    attack: AttackConfig | None,
    plan: ResultsPlan = ResultsPlan(),
    runs: Sequence[str] = (),
    command: str = "hfi results",
    erase_with: Callable[[EraseConfig], Run] | None = None,
) -> tuple[Comparison, list[str]]:
    """Write `out` (Markdown), and beside it `compare.html`, `.json`, `.txt`.

    Everything that is done already is taken as it is, so the same command goes on where it was stopped; `out` is
    written anew after every run, so that what was measured can be read at any time.

    Args:
        store: where everything is.
        project: a project with a score model and, where tokens are targets, with tokens.
        erase: what all methods share; each method keeps its own options at their defaults.
        evaluate: the protocol.
        attack: which attack, and its budget; None = nobody attacks.
        plan: which methods, targets and seeds; without methods, only `runs`.
        runs: erasures that are there already, each a row of its own.
        command: what was typed, for the document.
        erase_with: how an erasure is run; default: in a process of its own, for the sake of its peak memory.

    Returns:
        The table, and a sentence for each run that failed: one failure does not cost the others.

    Raises:
        ConfigError: none could be measured.
    """
    table = _Table(store, project, out, progress, evaluate, attack, command)
    make = erase_with or (lambda config: erase_in_own_process(store, config, project))
    for method, targets, seed in plan.runs():
        label = f"{method}, {targets}" + (f", seed {seed}" if len(plan.seeds) > 1 else "")
        name = f"sld {plan.sld_level}, {targets}" if method == "sld" else f"{method}, {targets}"
        with table.noting(label):
            if method in KINDS:
                config = GenerateConfig.model_validate({"model": evaluate.model, "sld_level": plan.sld_level})
                steps = evaluate.num_inference_steps
                guard = build_steering(store, project, method, targets, plan.text, config, steps)
                table.add(name, name, run_evaluate(store, evaluate, project, progress, guard=guard).run, Cost(0.0))
            else:
                changes = {"method": method, "targets": targets, "seed": seed}
                changes |= {"text": plan.text if targets == "text" else ""}
                run = make(EraseConfig.model_validate(erase.model_dump(exclude_unset=True) | changes))
                table.add_erased(name, label, run.id)
    for run_id in runs:
        with table.noting(run_id):
            table.add_erased(run_id, run_id, run_id)
    if not table.rows:
        raise ConfigError(f"No method could be measured: {'; '.join(table.failures) or 'none was named'}")
    return table.write(is_last=True), table.failures


class _Table:
    """What was measured so far, row by row, and the document of it."""

    def __init__(
        self,
        store: Store,
        project: str,
        out: Path,
        progress: Progress,
        evaluate: EvaluateConfig,
        attack: AttackConfig | None,
        command: str,
    ) -> None:
        self.store, self.project, self.out, self.progress = store, project, out, progress
        self.evaluate, self.attack, self.command = evaluate, attack, command
        self.rows: dict[str, list[_Measured]] = {}
        self.failures: list[str] = []

    def noting(self, label: str) -> Noting:
        """A block whose failure is noted under this label, and goes no further."""
        return Noting(self.failures, label)

    def add_erased(self, row: str, label: str, run_id: str) -> None:
        """Evaluate and attack an erasure, into a row."""
        config = self.evaluate.model_copy(update={"erased": run_id})
        evaluation = run_evaluate(self.store, config, self.project, self.progress).run
        metrics = self.store.get_run(run_id).metrics
        cost = Cost(metrics.get("erase_seconds"), metrics.get("erase_peak_memory_mib"))
        if self.attack is not None:
            with self.noting(f"{label}, attack"):
                attack = self.attack.model_copy(update={"erased": run_id})
                run_attack(self.store, attack, self.project, self.progress)
        self.add(row, describe_run(self.store, evaluation), evaluation, cost)

    def add(self, row: str, name: str, evaluation: Run, cost: Cost) -> None:
        """Put an evaluation into a row, and write the document."""
        result = read_result(self.store.artifact_dir(evaluation.id) / EVALUATION_ARTIFACT)
        attacks = attacks_on(self.store, result)
        self.rows.setdefault(row, []).append(_Measured(name, result, cost, attacks))
        self.write()

    def write(self, *, is_last: bool = False) -> Comparison:
        """The document, and with the last row the page and its pictures."""
        results, attacks, costs = [], {}, {}
        for row, measured in self.rows.items():
            name = measured[0].name if len(measured) == 1 else f"{row} ({len(measured)} runs)"
            results += [(name, one.result) for one in measured]
            attacks[name] = attacks_over_runs([one.attacks for one in measured])
            costs[name] = [one.cost for one in measured]
        comparison = compare_results(results, attacks, costs=costs)
        concept = words_of_concept(results[0][1].group).one
        notes = (STEERING_NOTE,) if any("guard" in result.figures for _, result in results) else ()
        comparison = replace(
            comparison, sentences=five_sentences(comparison, concept), notes=(*comparison.notes, *notes)
        )
        pictures = [measured[0].result for measured in self.rows.values()]
        shown = picture_rows(self.store, pictures) if is_last else None
        _write(self.out, comparison, self.failures, self.command, shown)
        return comparison


def attacks_over_runs(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures of each attack that was made on every run: rates are means over runs, all else is the first run's."""
    found = {}
    for key in [key for key in runs[0] if all(key in run for run in runs)]:
        figures = dict(runs[0][key])
        for side in [side for side in ("before_attack", "after_attack", "control") if side in figures]:
            rates = [run[key][side] for run in runs]
            mean = share_over_runs([Interval(r["rate"], r["low"], r["high"], r["n"]) for r in rates])
            figures[side] = {"rate": mean.estimate, "low": mean.low, "high": mean.high, "n": mean.n}
        found[key] = figures
    return found


def _write(
    out: Path, comparison: Comparison, failures: Sequence[str], command: str, pictures: Sequence[PictureRow] | None
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
    if pictures is not None:
        write_comparison(out.parent if out.parent.name != "docs" else out.parent / "results", comparison, pictures)
