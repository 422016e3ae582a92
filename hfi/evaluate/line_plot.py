"""Curves with their intervals as one SVG file that needs nothing else. Torch-free."""

from __future__ import annotations

import io
from dataclasses import dataclass

SIZE_IN = (8.0, 4.5)
COLOURS = ("#0b6e99", "#b4451f", "#5b6770", "#6b4fa0")  # told apart in grey print by their brightness and their marks
STYLES = ("-", "--", ":", "-.")
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
    """The plot as SVG text, the same for the same curve; words stay text.

    Args:
        curve: One series or more, four at most, with one point or more among them.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator, PercentFormatter, StrMethodFormatter

    xs = sorted({point.x for points in curve.series.values() for point in points})
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "hfi", "font.family": "sans-serif"}):
        figure = Figure(figsize=SIZE_IN, layout="constrained")
        axes = figure.subplots()
        if xs[0] > 0 and xs[-1] / xs[0] > LOG_FROM:
            axes.set_xscale("log")
        looks = zip(curve.series.items(), COLOURS, STYLES, strict=False)
        for place, ((name, points), colour, style) in enumerate(looks):
            values = [point.value for point in points]
            reach = [[p.value - p.low for p in points], [p.high - p.value for p in points]]
            drawn_series = axes.errorbar(
                [point.x for point in points], values, yerr=reach, label=name, color=colour, linestyle=style,
                marker="o", markersize=4, capsize=3, elinewidth=1,
            )  # fmt: skip
            drawn_series[0].set_gid(f"series-{place}")
        axes.set_xticks(xs)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(
            PercentFormatter(1, 0, " %") if curve.is_x_share else StrMethodFormatter("{x:g}")
        )
        if curve.is_share:
            axes.set_ylim(0, 1)
            axes.yaxis.set_major_formatter(PercentFormatter(1, 0, " %"))
        axes.set(title=curve.title, xlabel=curve.x_label, ylabel=curve.y_label)
        axes.grid(axis="y", color="#d8dde0")
        axes.spines[["top", "right"]].set_visible(False)
        if len(curve.series) > 1:
            axes.legend(frameon=False)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Title": curve.title})
    return drawn.getvalue()
