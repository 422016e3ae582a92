"""What a table of methods says, in five sentences a newcomer understands, each from the numbers alone. Torch-free."""

from __future__ import annotations

from hfi.evaluate.compare import Cell, Comparison, MethodRow

REMOVAL, OTHERS = "shows the concept", "others right"


def five_sentences(comparison: Comparison, concept: str) -> tuple[str, ...]:
    """Where it started, who removes most, who damages least, the best of both, and what attacks bring back.

    Args:
        comparison: a table whose first row is the original.
        concept: what was to be removed, with its article, e.g. "a weapon".
    """
    original, *methods = comparison.rows
    rows = [row for row in methods if _has(comparison, row, REMOVAL) and _has(comparison, row, OTHERS)]
    if not rows or not _has(comparison, original, REMOVAL):
        return ("No method was measured on both questions, so there is nothing to say yet.",)
    start, kept = _cell(comparison, original, REMOVAL), _cell(comparison, original, OTHERS)
    strongest = min(rows, key=lambda row: _value(comparison, row, REMOVAL))
    gentlest = max(rows, key=lambda row: _value(comparison, row, OTHERS))
    best = max(rows, key=lambda row: _value(comparison, row, OTHERS) - _value(comparison, row, REMOVAL))
    return (
        f"Asked for {concept}, the original model draws one in {start.text} of the pictures; asked for anything "
        f"else, it draws all that was asked for in {kept.text}.",
        _strongest(comparison, strongest, original),
        f"{gentlest.name} leaves other pictures most as they should be: {_cell(comparison, gentlest, OTHERS).text} of "
        f"them are right.",
        f"{best.name} has the largest gap between what stays ({_cell(comparison, best, OTHERS).text}) and what should "
        f"go ({_cell(comparison, best, REMOVAL).text}), which is the best of both.",
        _attacked(comparison, rows),
    )


def _strongest(comparison: Comparison, row: MethodRow, original: MethodRow) -> str:
    """Who removes most, if anybody removes anything."""
    cell = _cell(comparison, row, REMOVAL)
    if _value(comparison, row, REMOVAL) >= _value(comparison, original, REMOVAL):
        return f"Nobody removes it: the best, {row.name}, leaves it in {cell.text} of those pictures."
    return f"{row.name} removes most: {cell.text} of those pictures still show it."


def _attacked(comparison: Comparison, rows: list[MethodRow]) -> str:
    """The worst attack on each method, and who withstands best."""
    names = [name for name, _ in comparison.columns if name.startswith("attack: ")]
    worst: list[tuple[MethodRow, str, Cell]] = []
    for row in rows:
        found = [(name, _cell(comparison, row, name)) for name in names]
        known = [(name, cell) for name, cell in found if cell.value is not None]
        if known:
            name, cell = max(known, key=lambda pair: pair[1].value or 0.0)
            worst.append((row, name.removeprefix("attack: "), cell))
    if not worst:
        return "Nobody attacked these models, so nothing here says how easily the concept comes back."
    row, name, cell = min(worst, key=lambda found: found[2].value or 0.0)
    left = len(rows) - len(worst)
    rest = f" {left} of the {len(rows)} were not attacked." if left else ""
    return (
        f"Attacked, {row.name} withstands best: with the strongest attack ({name}) {cell.text} of the pictures show "
        f"the concept.{rest}"
    )


def _place(comparison: Comparison, column: str) -> int:
    return next((i for i, (name, _) in enumerate(comparison.columns) if name == column), -1)


def _cell(comparison: Comparison, row: MethodRow, column: str) -> Cell:
    place = _place(comparison, column)
    return row.cells[place] if place >= 0 else Cell()


def _value(comparison: Comparison, row: MethodRow, column: str) -> float:
    return _cell(comparison, row, column).value or 0.0


def _has(comparison: Comparison, row: MethodRow, column: str) -> bool:
    return _cell(comparison, row, column).value is not None
