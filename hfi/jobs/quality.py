"""How good the embedded model and its detectors are, as a table for people."""

from __future__ import annotations

from hfi.config import SAMPLER_NAMES, SamplerConfig
from hfi.evaluate.metrics import Interval
from hfi.progress import Progress

NAMES = {
    "object": "right object, one-object prompts",
    "style": "right style, one-object prompts",
    "background": "right background, one-object prompts",
    "each_of_two": "each of two objects present",
    "objects": "objects, all and only",
}


def measure_quality(model: str, num_single: int, num_pair: int, num_scenes: int, progress: Progress) -> str:
    """Measure model, judge and eye; a text of one line a figure with its 95 % Wilson interval.

    Args:
        model: model folder or `mini`.
        num_single: pictures of one-object prompts, 25 DDIM steps, guidance 3.
        num_pair: pictures of two-object prompts.
        num_scenes: held-out rendered scenes for the detectors.
        progress: told about every picture.
    """
    from hfi.mini.detect import load_detector
    from hfi.mini.measure import measure_detector, measure_model

    lines = []
    for name in ("judge", "eye"):
        lines += [f"{name} on rendered scenes: ", *_lines(measure_detector(load_detector(name), num_scenes))]
    config = SamplerConfig()
    progress.start("measure", num_single + num_pair)
    figures = measure_model(model, num_single, num_pair, config, lambda *_: progress.advance())
    progress.finish()
    sampler = f"{SAMPLER_NAMES[config.sampler]}, {config.num_inference_steps} steps, guidance {config.guidance_scale}"
    protocol = f"{sampler}, held-out prompts and seeds"
    return "\n".join([*lines, f"{model} ({protocol}): ", *_lines(figures)])


def _lines(figures: dict[str, Interval]) -> list[str]:
    return [
        f"  {NAMES.get(name, name):<38} {100 * i.estimate:5.1f} %  [{100 * i.low:.1f}, {100 * i.high:.1f}]  n = {i.n}"
        for name, i in figures.items()
    ]
