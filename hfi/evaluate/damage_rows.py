"""The figures of damage as lines for people; what was not measured has no line. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hfi.evaluate.report_content import DamageRow


def damage_rows(figures: Mapping[str, Any]) -> tuple[DamageRow, ...]:
    """Lines of a report from the `damage` part of an evaluation's figures."""
    rows = []
    if "clip_score" in figures:
        score = figures["clip_score"]
        text = f"{_mean(score['before'])}, then {_mean(score['after'])}; change {_mean(score['difference'])}"
        rows.append(DamageRow("CLIP score", text, "Fit of picture and prompt, 0 to 100; higher is better."))
    if "layout_distance" in figures:
        meaning = "0 = everything in its place, 1 = placed anew; lower is better."
        rows.append(DamageRow("Layout distance", _mean(figures["layout_distance"]), meaning))
    if "lpips" in figures:
        rows.append(DamageRow("LPIPS", _mean(figures["lpips"]), "0 = looks the same; lower is better."))
    if "kernel_distance" in figures:
        d = figures["kernel_distance"]
        text = f"{d['value']:.5f} (subsets {d['mean']:.5f} ± {d['sd']:.5f}, n {d['n']})"
        meaning = (
            "KID on CLIP embeddings of the two sets; near 0 = alike. A set can come nearer while pictures get worse."
        )
        rows.append(DamageRow("Kernel distance", text, meaning))
    if "fid" in figures:
        meaning = "Of the two sets; never alone: it often falls when a model is damaged."
        rows.append(DamageRow("FID", f"{figures['fid']['value']:.2f} (n {figures['fid']['n']})", meaning))
    rows += [_neighbour(row) for row in figures.get("neighbours", ())]
    return tuple(rows)


def _neighbour(row: Mapping[str, Any]) -> DamageRow:
    is_rate = row["measure"] == "right"
    text = " → ".join(_share(row[key]) if is_rate else _mean(row[key]) for key in ("before", "after"))
    measure = "share of right pictures" if is_rate else "CLIP score"
    return DamageRow(f"Neighbour: {row['name']}", text, f"{measure}; distance {row['distance']:.2f} of its words.")


def _mean(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.3g} [{interval['low']:.3g}, {interval['high']:.3g}]"


def _share(interval: Mapping[str, float]) -> str:
    value, low, high = (100 * interval[key] for key in ("value", "low", "high"))
    return f"{value:.0f} % [{low:.0f}, {high:.0f}], n {interval['n']}"
