"""How well the embedded model draws what it is asked for, by the independent judge, on held-out prompts and seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from hfi.config import SamplerConfig
from hfi.evaluate.metrics import Interval, wilson_interval
from hfi.mini.detect import Detector, load_detector
from hfi.mini.suite import ScenePrompt, pair_prompts, single_prompts
from hfi.mini.world import random_scene, render

FIRST_SEED = 2_000_000


def measure_detector(detector: Detector, count: int, seed: int = 0) -> dict[str, Interval]:
    """Share of held-out rendered scenes of which a detector gets objects (all and only), style and background right."""
    rng = np.random.default_rng((seed, 99))
    scenes = [random_scene(detector.world, rng, held_out=True) for _ in range(count)]
    sight = detector.see([Image.fromarray(render(scene)) for scene in scenes])
    world = detector.world
    wanted = np.array([[name in scene.objects for name in world.objects] for scene in scenes])
    hits = {
        "objects": ((sight.objects >= 0.5) == wanted).all(axis=1),
        "style": sight.styles.argmax(1) == [world.styles.index(scene.style) for scene in scenes],
        "background": sight.backgrounds.argmax(1) == [world.backgrounds.index(scene.background) for scene in scenes],
    }
    return {name: wilson_interval(int(hit.sum()), count) for name, hit in hits.items()}


def measure_model(
    model: str,
    num_single: int,
    num_pair: int,
    config: SamplerConfig,
    on_image: Callable[[int, int], None] | None = None,
) -> dict[str, Interval]:
    """Right object, style and background on single-object prompts; each of two objects present on two-object prompts.

    Args:
        model: a model folder of the embedded kind, or `mini`.
        num_single: pictures of single-object prompts.
        num_pair: pictures of two-object prompts; each counts two objects.
        config: sampler; the stated protocol is 25 DDIM steps.
        on_image: called with (pictures done, pictures in all).
    """
    from hfi.generate import GenerationRequest, generate
    from hfi.pipelines import load_pipeline

    judge = load_detector("judge")
    prompts = [
        *single_prompts(judge.world, num_single, first_seed=FIRST_SEED),
        *pair_prompts(judge.world, num_pair, first_seed=FIRST_SEED + num_single),
    ]
    requests = [GenerationRequest(p.prompt, p.seed) for p in prompts]
    images = [image for _, image in generate(load_pipeline(model), requests, config, on_image)]
    return count_right(judge, prompts, images)


def count_right(judge: Detector, prompts: list[ScenePrompt], images: list[Any]) -> dict[str, Interval]:
    """Rates of `measure_model` for given pictures."""
    sight, world = judge.see(images), judge.world
    hits: dict[str, list[bool]] = {"object": [], "style": [], "background": [], "each_of_two": []}
    for row, prompt in enumerate(prompts):
        present = [bool(sight.objects[row, world.objects.index(name)] >= 0.5) for name in prompt.objects]
        if len(present) == 2:
            hits["each_of_two"] += present
            continue
        hits["object"] += present
        hits["style"].append(world.styles[int(sight.styles[row].argmax())] == prompt.style)
        hits["background"].append(world.backgrounds[int(sight.backgrounds[row].argmax())] == prompt.background)
    return {name: wilson_interval(sum(found), len(found)) for name, found in hits.items() if found}
