"""A curve with its intervals as one SVG file that needs nothing else: axes, bands, points and a legend. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 360  # units of the drawing
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 44, 48
COLOURS = ("#0b6e99", "#b4451f", "#5b6770", "#6b4fa0")  # told apart in grey print by their brightness and their marks
DASHES = ("", "7 4", "2 4", "9 3 2 3")
NUM_TICKS = 5
LOG_FROM = 8.0  # a horizontal axis that spans more than this ratio is logarithmic


@dataclass(frozen=True)
class Point:
    """A mean with its interval at one place; `num_runs` is how many runs it is of."""

    x: float
    value: float
    low: float
    high: float
    num_runs: int = 1


@dataclass(frozen=True)
class Curve:
    """One plot: series by name, each with rising x; `is_share` writes values in per cent."""

    title: str
    x_label: str
    y_label: str
    series: dict[str, tuple[Point, ...]]
    is_share: bool = True
    is_x_share: bool = False
    notes: tuple[str, ...] = ()


def plot_curve(curve: Curve) -> str:
    """The plot as SVG text; ends of intervals decide the vertical range.

    Args:
        curve: One series or more, four at most, with one point or more among them.
    """
    points = [point for series in curve.series.values() for point in series]
    xs, is_log = sorted({point.x for point in points}), False
    if xs[0] > 0 and xs[-1] / xs[0] > LOG_FROM:
        is_log = True
    low, high = _rounded_range(min(p.low for p in points), max(p.high for p in points))

    def across(x: float) -> float:
        first, last, here = (math.log(v) if is_log else v for v in (xs[0], xs[-1], x))
        share = (here - first) / (last - first) if last > first else 0.5
        return LEFT + 12 + share * (WIDTH - LEFT - RIGHT - 24)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    shapes = [_text(LEFT, 20, curve.title, "start", 15)]
    for tick in range(NUM_TICKS + 1):
        value = low + (high - low) * tick / NUM_TICKS
        y = up(value)
        shapes.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#d8dde0"/>')
        shapes.append(_text(LEFT - 8, y + 4, _label(value, curve.is_share), "end"))
    for x in xs:
        shapes.append(_text(across(x), HEIGHT - BOTTOM + 18, _label(x, curve.is_x_share, 0), "middle"))
    shapes.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, curve.x_label, "middle"))
    shapes.append(f'<g transform="translate(14 {HEIGHT / 2}) rotate(-90)">{_text(0, 0, curve.y_label, "middle")}</g>')
    for place, (name, series) in enumerate(curve.series.items()):
        placed = [(across(p.x) + 3 * place, up(p.value), up(p.low), up(p.high)) for p in series]
        shapes += _series(placed, COLOURS[place], DASHES[place])
        if len(curve.series) > 1:
            y = TOP + 14 + 18 * place
            shapes.append(_line([(WIDTH - 190, y - 4), (WIDTH - 160, y - 4)], COLOURS[place], DASHES[place]))
            shapes.append(_text(WIDTH - 152, y, name, "start"))
    body = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img"><title>{escape(curve.title)}</title>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _series(placed: Sequence[tuple[float, float, float, float]], colour: str, dash: str) -> list[str]:
    """A line through the means, and a bar and a dot for each."""
    shapes = [_line([(x, y) for x, y, _, _ in placed], colour, dash)]
    for x, y, bottom, top in placed:
        shapes.append(f'<path d="M{x:.1f} {bottom:.1f}V{top:.1f}" stroke="{colour}" stroke-width="1.5" opacity=".6"/>')
        shapes.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
    return shapes


def _line(points: Sequence[tuple[float, float]], colour: str, dash: str) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'


def _rounded_range(low: float, high: float) -> tuple[float, float]:
    """Ends on a round step, so that ticks are round numbers."""
    span = max(high - low, 1e-6)
    step = 10 ** math.floor(math.log10(span / NUM_TICKS))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step * NUM_TICKS >= span)
    first = math.floor(low / step) * step
    if first + NUM_TICKS * step < high:
        step = next(s for s in (2 * step, 2.5 * step, 5 * step) if math.floor(low / s) * s + NUM_TICKS * s >= high)
        first = math.floor(low / step) * step
    return first, first + NUM_TICKS * step


def _label(value: float, is_share: bool, digits: int = 1) -> str:
    text = f"{100 * value:.{digits}f}" if is_share else f"{value:g}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + (" %" if is_share else "")


def _text(x: float, y: float, text: str, anchor: str, size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#20282d">{escape(text)}</text>'
    )
