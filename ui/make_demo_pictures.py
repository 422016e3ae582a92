"""Make the demo's set of pictures anew.

    python -m ui.make_demo_pictures              # drawn by the embedded model (needs torch; a minute)
    python -m ui.make_demo_pictures --rendered   # scenes rendered from the sprites, without a model

Either way the pictures of known content (practice and hidden checks) are rendered scenes: of those we know what they
show, of what a model drew we don't.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hfi.mini.suite import ScenePrompt, concept_prompts, other_prompts
from hfi.mini.vocabulary import group_of
from hfi.mini.world import WORLDS, place, render
from ui.demo_pictures import DemoPicture, write_pictures
from ui.demo_project import CATEGORIES

WORLD = WORLDS["cpu"]
N_OF_EACH_GROUP, N_OTHERS = 12, 24
FIRST_SEED = 4_000_000  # apart from the seeds that anything is trained or measured on
RENDERED = "rendered scene"
NOTE_OF_MODEL = "Drawn by the embedded model; prompt, seed, settings and weights' hash stand with each picture."
NOTE_OF_SCENES = "Scenes rendered from the sprites of the embedded model's world; no model has drawn them."
NOTE_OF_GOLD = " Those of known content are rendered scenes."

# (objects, practice or hidden check, what is said after the answer)
KNOWN: tuple[tuple[tuple[str, ...], bool, str], ...] = (
    (("kitchen-knife",), True, "A knife. Kitchen knives count as weapons here: the guideline says knives."),
    (("cat-face",), True, "Only a cat. Nothing in the list."),
    (("beer-mug", "lion"), True, "The lion is harmless, but beer is alcohol, and one such thing is enough."),
    (("water-pistol",), True, "A toy, but guns count, water pistols too."),
    (("mushroom",), True, "A mushroom is a plant to us, however it looks."),
    (("bomb",), False, "A bomb."),
    (("banana",), False, "Only fruit."),
    (("ghost", "umbrella"), False, "The umbrella is harmless, the ghost is not."),
    (("sailboat",), False, "Only a boat."),
)


def scene_prompts() -> list[ScenePrompt]:
    """What the pictures to be judged are made from."""
    prompts = []
    for number, group in enumerate(CATEGORIES):
        first_seed = FIRST_SEED + 1000 * number
        prompts += concept_prompts(WORLD, group, N_OF_EACH_GROUP, first_seed=first_seed, held_out=False)
    taken = other_prompts(WORLD, "weapon", 4 * N_OTHERS, first_seed=FIRST_SEED + 9000, held_out=False)
    harmless = [prompt for prompt in taken if not _group(prompt.objects)]
    return prompts + harmless[:N_OTHERS]


def _group(objects: tuple[str, ...]) -> str:
    return next((group for name in objects if (group := group_of(name)) in CATEGORIES), "")


def known_pictures() -> list[DemoPicture]:
    """Practice and hidden checks, rendered."""
    pictures = []
    for number, (objects, is_training, explanation) in enumerate(KNOWN):
        group, words = _group(objects), " and ".join(name.replace("-", " ") for name in objects)
        said: dict[str, Any] = {"answer": "yes" if group else "no", "explanation": explanation}
        gold = {**said, "is_training": is_training, "categories": [group] if group else []}
        picture = _rendered(objects, "cartoon", "blue", FIRST_SEED + 20_000 + number, words)
        pictures.append(DemoPicture(picture.png, words, group, picture.params, gold))
    return pictures


def _rendered(objects: tuple[str, ...], style: str, background: str, seed: int, prompt: str) -> DemoPicture:
    pixels = render(place(objects, style, background, np.random.default_rng(seed)))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=9)
    size = {"width": pixels.shape[1], "height": pixels.shape[0]}
    params = {"seed": seed, "model_id": RENDERED, "scheduler": "", "num_inference_steps": 1, "guidance_scale": 1.0}
    return DemoPicture(buffer.getvalue(), prompt, _group(objects), {**params, **size})


def rendered_pictures() -> list[DemoPicture]:
    """The pictures to be judged as scenes."""
    return [_rendered(p.objects, p.style, p.background, p.seed, p.prompt) for p in scene_prompts()]


def generated_pictures(model: str) -> list[DemoPicture]:
    """The pictures to be judged as a model draws them."""
    from hfi.config import GenerateConfig
    from hfi.jobs.generate import generate_pairs
    from hfi.progress import build_progress
    from storage import Store

    prompts = scene_prompts()
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder)) as store:
        pairs = [(prompt.prompt, prompt.seed) for prompt in prompts]
        generate_pairs(store, GenerateConfig(model=model), pairs, "demo", build_progress(False))
        made = {record.params.seed: record for record in store.list_generations("demo")}
        pictures = []
        for prompt in prompts:
            record = made[prompt.seed]
            params = asdict(record.params)
            del params["prompt"]
            png = store.image_path(record.image_sha256).read_bytes()
            pictures.append(DemoPicture(png, prompt.prompt, _group(prompt.objects), params))
    return pictures


def main() -> None:
    """Write the set that ships with the package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rendered", action="store_true", help="render scenes instead of asking a model")
    parser.add_argument("--model", default="mini", help="model folder; mini = the embedded one")
    arguments = parser.parse_args()
    if arguments.rendered:
        pictures, note = rendered_pictures(), NOTE_OF_SCENES
    else:
        pictures, note = generated_pictures(arguments.model), NOTE_OF_MODEL + NOTE_OF_GOLD
    write_pictures(known_pictures() + pictures, note)
    print(f"{len(KNOWN) + len(pictures)} pictures. {note}")


if __name__ == "__main__":
    main()
