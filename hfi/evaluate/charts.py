"""Small charts as inline SVG: shapes only, no text, so that they stretch with the page; labels are the page's own text.

Colours come from the page's style sheet through class names.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

WIDTH, HEIGHT = 400, 140  # units of the drawing, not pixels
NUM_BINS = 20


def line_chart(steps: Sequence[int], values: Sequence[float]) -> Markup:
    """A curve over steps, thin as measured and thick as a moving average; the vertical axis starts at 0.

    Args:
        steps: Rising; at least one.
        values: One a step; values that are not finite leave a gap.
    """
    x, y = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    top = float(np.nanmax(np.where(np.isfinite(y), y, np.nan), initial=0.0)) or 1.0
    xs = (x - x[0]) / max(x[-1] - x[0], 1) * WIDTH
    ys = HEIGHT - np.clip(y, 0, top) / top * (HEIGHT - 6)
    raw = f'<path class="raw" d="{_path(xs, ys)}"/>'
    return _svg(f'{raw}<path class="smooth" d="{_path(xs, _moving_average(ys))}"/>')


def histogram(scores: Sequence[float], is_flagged: Sequence[bool]) -> Markup:
    """Concept scores of flagged pictures upwards and of all others downwards, in NUM_BINS bins from 0 to 1.

    Each half is scaled to its own largest bin: the two classes are rarely of one size, and their shapes are the point.
    """
    values, flagged = np.asarray(scores, dtype=float), np.asarray(is_flagged, dtype=bool)
    edges = np.linspace(0, 1, NUM_BINS + 1)
    width, middle, bars = WIDTH / NUM_BINS, HEIGHT / 2, []
    for mask, name, direction in ((flagged, "flagged", -1), (~flagged, "unflagged", 1)):
        counts = np.histogram(np.clip(values[mask], 0, 1), edges)[0]
        heights = counts / max(counts.max(initial=0), 1) * (middle - 2)
        bars += [
            f'<rect class="{name}" x="{i * width + 1:.1f}" width="{width - 2:.1f}" height="{height:.1f}" '
            f'y="{middle - (height if direction < 0 else 0):.1f}"/>'
            for i, height in enumerate(heights)
            if height > 0
        ]
    return _svg("".join(bars) + f'<path class="axis" d="M0 {middle}H{WIDTH}"/>')


def roc_curve(scores: Sequence[float], is_flagged: Sequence[bool]) -> Markup:
    """Share of flagged pictures found against share of others flagged wrongly, over all thresholds; square."""
    values, flagged = np.asarray(scores, dtype=float), np.asarray(is_flagged, dtype=bool)
    order = np.argsort(-values, kind="stable")
    # Equal scores move together: only the last of each run of equal scores is a point of the curve.
    is_last = np.append(np.diff(values[order]) != 0, True)
    found = np.append(0, np.cumsum(flagged[order])[is_last]) / max(int(flagged.sum()), 1)
    wrong = np.append(0, np.cumsum(~flagged[order])[is_last]) / max(int((~flagged).sum()), 1)
    size = float(HEIGHT)
    diagonal = f'<path class="axis" d="M0 {size}L{size} 0"/>'
    return _svg(f'{diagonal}<path class="smooth" d="{_path(wrong * size, size - found * size)}"/>', width=HEIGHT)


def _path(xs: np.ndarray, ys: np.ndarray) -> str:
    """SVG path through the finite points; a gap starts a new piece."""
    pieces, is_drawing = [], False
    for x, y in zip(xs, ys, strict=True):
        if np.isfinite(y):
            pieces.append(f"{'L' if is_drawing else 'M'}{x:.1f} {y:.1f}")
        is_drawing = bool(np.isfinite(y))
    return "".join(pieces)


def _moving_average(values: np.ndarray) -> np.ndarray:
    """Mean over a window of a twelfth of the curve around each point, narrower at the ends."""
    radius = max(len(values) // 24, 1)
    averages = [np.nanmean(values[max(0, i - radius) : i + radius + 1]) for i in range(len(values))]
    return np.asarray(averages) if np.isfinite(values).all() else values


def _svg(content: str, width: int = WIDTH) -> Markup:
    # The content is made of numbers and fixed names only, so it is safe as it stands.
    return Markup(
        f'<svg viewBox="0 0 {width} {HEIGHT}" preserveAspectRatio="none" role="img" aria-hidden="true">{content}</svg>'
    )
