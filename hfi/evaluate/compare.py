"""Several evaluations side by side: one table as text, JSON and one HTML file. Torch-free.

Evaluations of the same name are runs of one method: they share a row, with means over runs (`hfi.evaluate.repeats`).
Numbers of different protocols do not belong in one table. Whoever wants them there all the same has to say so, and then
the table says so too.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from PIL import Image

from hfi.errors import ConfigError
from hfi.evaluate.metrics import Interval
from hfi.evaluate.protocol import EvaluationResult, differences, protocol_facts
from hfi.evaluate.repeats import EXPLANATION, QUESTIONS, hits_over_runs, mean_over_runs, rate_over_runs
from hfi.evaluate.report import encode_picture
from hfi.files import write_text_atomically

MISSING = "–"
WARNING = "These rows were measured under different protocols: their numbers must not be compared."


@dataclass(frozen=True)
class Cell:
    """One number with its interval, as text and as numbers; `value` None = not measured."""

    text: str = MISSING
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class MethodRow:
    """One model: its name, the hash of its protocol, and a cell for each column."""

    name: str
    protocol_sha256: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Comparison:
    """The table: columns with which way is good, rows, and what must be said with it."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[MethodRow, ...]
    protocol: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    attacks: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """What one run took to make: seconds by the clock, and the highest memory of its process; None = not measured."""

    seconds: float | None = None
    memory_mib: float | None = None


@dataclass(frozen=True)
class PictureRow:
    """The same words and seed by every model of the table, in the order of its rows."""

    prompt: str
    seed: int
    pictures: tuple[Image.Image, ...]
    is_veiled: bool = False
    """Whether they stay blurred until somebody clicks."""


Unit = Literal["share", "points", "number"]  # points: a difference of shares, after - before
# column -> (path into the figures, its unit, which way is good)
MEASURES: dict[str, tuple[tuple[str, ...], Unit, str]] = {
    "shows the concept": (("removal",), "share", "lower"),
    "others right": (("others_accuracy",), "share", "higher"),
    "others right, change in points": (("others_accuracy", "difference"), "points", "higher"),
    "rest of the prompt": (("in_prompt_rest",), "share", "higher"),
    "CLIP score": (("damage", "clip_score"), "number", "higher"),
    "layout distance": (("damage", "layout_distance"), "number", "lower"),
    "kernel distance ×1000": (("damage", "kernel_distance"), "number", "lower"),
    "LPIPS": (("damage", "lpips"), "number", "lower"),
    "FID": (("damage", "fid"), "number", "lower"),
}
ATTACK_COLUMNS = {
    "reinversion": "attack: new word", "prefix": "attack: prefix", "synonyms": "attack: synonyms",
    "latents": "attack: latents",
}  # fmt: skip
COST_COLUMNS = ("seconds to make", "peak memory, MiB")


def compare_results(
    results: Sequence[tuple[str, EvaluationResult]],
    attacks: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
    *,
    costs: Mapping[str, Sequence[Cost]] | None = None,
    allow_different_protocols: bool = False,
) -> Comparison:
    """One row for the original and one for each method.

    Args:
        results: (name of the method, its evaluation), in the order of the rows; the same name again is another run.
        attacks: method -> attack -> figures of that attack, over all its runs.
        costs: method -> what each of its runs took.
        allow_different_protocols: put them in one table all the same, with a warning in it.

    Raises:
        ConfigError: no result, or protocols differ and nobody allowed it; the message names the differences.
    """
    if not results:
        raise ConfigError("There is nothing to compare: name evaluations, or run `hfi evaluate` first.")
    first_name, first = results[0]
    warnings = []
    for name, result in results[1:]:
        if result.protocol_sha256 != first.protocol_sha256:
            texts = "; ".join(differences(first.protocol, result.protocol))
            if not allow_different_protocols:
                raise ConfigError(
                    f"{first_name} and {name} were measured under different protocols ({texts}): evaluate them under "
                    f"one, or add --allow-different-protocols, which marks the table."
                )
            warnings.append(f"{name} differs from {first_name} in {texts}.")
    methods: dict[str, list[EvaluationResult]] = {}
    for name, result in results:
        methods.setdefault(name, []).append(result)
    table = [("original", [first], "before"), *((name, runs, "after") for name, runs in methods.items())]
    cells = {(name, key): _cell(key, runs, side) for name, runs, side in table for key in MEASURES}
    names = [key for key in MEASURES if any(cells[name, key].value is not None for name, _, _ in table)]
    tried = [key for key in ATTACK_COLUMNS if any(key in found for found in (attacks or {}).values())]
    paid = {name: _cost_cells(runs) for name, runs in (costs or {}).items()}
    is_paid = any(cell.value is not None for pair in paid.values() for cell in pair)
    rows = tuple(
        MethodRow(
            name,
            runs[0].protocol_sha256,
            (
                *(cells[name, key] for key in names),
                *(_attack_cell((attacks or {}).get(name, {}).get(key)) for key in tried),
                *(paid.get(name, (Cell(), Cell())) if is_paid else ()),
            ),
        )
        for name, runs, _ in table
    )
    columns = [*((name, MEASURES[name][2]) for name in names), *((ATTACK_COLUMNS[key], "lower") for key in tried)]
    columns += [(name, "lower") for name in COST_COLUMNS] if is_paid else []
    told = (WARNING, *warnings) if warnings else ()
    notes = (EXPLANATION,) if len(methods) < len(results) else ()
    facts = protocol_facts(first.protocol)
    return Comparison(tuple(columns), rows, facts, told, attacks=dict(attacks or {}), notes=notes)


def _cell(column: str, runs: Sequence[EvaluationResult], side: str) -> Cell:
    """What the figures of one run say of one side, or the mean over several."""
    if len(runs) == 1:
        return _single_cell(column, runs[0], side)
    path, unit, _ = MEASURES[column]
    hits = hits_over_runs([run.pictures for run in runs], path[0]) if path in [(name,) for name in QUESTIONS] else None
    confidence = runs[0].protocol.confidence
    if hits is not None and hits.size:
        return interval_cell(rate_over_runs(hits, confidence), unit)
    found = [cell for cell in (_single_cell(column, run, side) for run in runs) if cell.value is not None]
    if len(found) < len(runs):  # a mean over some of the runs would be another number
        return Cell()
    factor = 1000.0 if "×1000" in column else 1.0
    return interval_cell(mean_over_runs([_as_interval(cell, factor, confidence) for cell in found]), unit)


def _as_interval(cell: Cell, factor: float, confidence: float) -> Interval:
    """A cell as an interval; without ends of its own it varies between runs only."""
    value = cell.value or 0.0
    ends = [value if end is None else factor * end for end in (cell.low, cell.high)]
    return Interval(value, ends[0], ends[1], cell.n or 1, confidence)


def interval_cell(interval: Interval, unit: Unit) -> Cell:
    """An interval as a cell, a share in per cent."""
    found = {"low": interval.low, "high": interval.high, "n": interval.n}
    return _interval_cell(found, interval.estimate, unit)


def _cost_cells(runs: Sequence[Cost]) -> tuple[Cell, Cell]:
    """Mean seconds, and the highest memory of any run."""
    seconds = [run.seconds for run in runs if run.seconds is not None]
    memory = [run.memory_mib for run in runs if run.memory_mib is not None]
    mean = sum(seconds) / len(seconds) if seconds else None
    cells = (mean, max(memory, default=None))
    return (
        Cell() if cells[0] is None else Cell(f"{cells[0]:,.1f}" if cells[0] < 10 else f"{cells[0]:,.0f}", cells[0]),
        Cell() if cells[1] is None else Cell(f"{cells[1]:,.0f}", cells[1]),
    )


def _single_cell(column: str, result: EvaluationResult, side: str) -> Cell:
    """What the figures say of one side; measures of distance have no "before"."""
    path, unit, _ = MEASURES[column]
    found: Any = result.figures
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        return Cell()
    if "before" in found:
        found = found[side]
    elif side == "before":
        return Cell()
    value = found.get("rate", found.get("value"))
    scale = 1000.0 if "×1000" in column else 1.0
    return _interval_cell(found, float(value) * scale, unit)


def _attack_cell(figures: Mapping[str, Any] | None) -> Cell:
    return _interval_cell(figures["after_attack"], figures["after_attack"]["rate"], "share") if figures else Cell()


def _interval_cell(found: Mapping[str, Any], value: float, unit: Unit) -> Cell:
    low, high, factor = found.get("low"), found.get("high"), 1 if unit == "number" else 100
    digits = ".3f" if unit == "number" and abs(value) < 10 else "+.1f" if unit == "points" else ".1f"
    text = f"{factor * value:{digits}}" + (" %" if unit == "share" else "")
    if low is not None and high is not None:
        text += f" [{factor * low:{digits}}, {factor * high:{digits}}]"
    return Cell(text, value, low, high, found.get("n"))


def to_text(comparison: Comparison) -> str:
    """The table for a terminal, warnings first."""
    lines = [["model", *(f"{name} ({good})" for name, good in comparison.columns)]]
    lines += [[row.name, *(cell.text for cell in row.cells)] for row in comparison.rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*comparison.warnings, *table])


def to_markdown(comparison: Comparison) -> str:
    """The table and its protocol for a document."""
    header = ["model", *(f"{name} ({good} is better)" for name, good in comparison.columns)]
    rows = [header, ["---"] * len(header), *([r.name, *(c.text for c in r.cells)] for r in comparison.rows)]
    parts = [*(f"**{warning}**\n" for warning in comparison.warnings)]
    parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n")
    parts += [f"{number}. {sentence}" for number, sentence in enumerate(comparison.sentences, start=1)]
    parts += [f"\n{note}" for note in comparison.notes]
    parts.append("\nProtocol:\n")
    parts += [f"- {what}: {value}" for what, value in comparison.protocol]
    return "\n".join(parts) + "\n"


def write_comparison(folder: Path, comparison: Comparison, pictures: Sequence[PictureRow] = ()) -> None:
    """Write `compare.html`, `compare.json` and `compare.txt`, each atomically; pictures are in the page alone."""
    content = json.dumps(asdict(comparison), indent=1, ensure_ascii=False)
    write_text_atomically(folder / "compare.json", content + "\n")
    write_text_atomically(folder / "compare.txt", to_text(comparison) + "\n")
    write_text_atomically(folder / "compare.html", render_comparison(comparison, pictures))


def render_comparison(comparison: Comparison, pictures: Sequence[PictureRow] = ()) -> str:
    """The page as text."""
    return _template().render(table=comparison, pictures=pictures)


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("hfi.evaluate"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["data_uri"] = encode_picture
    return environment.get_template("compare.html")
