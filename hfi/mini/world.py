"""Scenes of the embedded model's world: one or two emoji on a coloured background, and the captions people would
give them.

Torch-free. A scene is rendered from the shipped sprite sheets; its caption names what is there, sometimes leaves out
the style or the
background, and sometimes only says the group ("a weapon"), so that words cover a concept as incompletely as they do
in life.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from hfi.config import resolve_model_folder
from hfi.mini.sprites import SPRITE_SIZE_PX, load_sheet
from hfi.mini.vocabulary import BACKGROUNDS, STYLE_WORDS, STYLES, all_objects, cpu_objects, group_of, words_for

IMAGE_SIZE_PX = 64
HELD_OUT_ONE_IN = 8
TWO_SHARE = 0.4
GROUP_WORDS = {
    "weapon": "weapon",
    "substance": "drug",
    "macabre": "spooky thing",
    "animal": "animal",
    "food": "snack",
    "vehicle": "vehicle",
    "nature": "natural thing",
    "thing": "thing",
}


@dataclass(frozen=True)
class World:
    """Which objects, styles and backgrounds a model knows; the order is the order of the detectors' outputs."""

    objects: tuple[str, ...]
    styles: tuple[str, ...]
    backgrounds: tuple[str, ...] = tuple(BACKGROUNDS)

    def in_group(self, group: str) -> tuple[str, ...]:
        """The world's objects of one group, such as `weapon`."""
        return tuple(name for name in self.objects if group_of(name) == group)


WORLDS = {
    "cpu": World(cpu_objects(), ("flat", "icon", "cartoon")),
    "gpu": World(all_objects(), STYLES),
}


def embedded_world(folder: Path | None = None) -> World:
    """The world that the shipped model knows, as its judge's configuration states it."""
    judge = (folder or Path(resolve_model_folder("mini"))) / "judge" / "config.json"
    config = json.loads(judge.read_text(encoding="utf-8"))
    return World(tuple(config["objects"]), tuple(config["styles"]), tuple(config["backgrounds"]))


@dataclass(frozen=True)
class Scene:
    """What is drawn: one or two objects of one style on a background, with centres and sizes in pixels."""

    objects: tuple[str, ...]
    style: str
    background: str
    centers: tuple[tuple[int, int], ...]
    sizes: tuple[int, ...]

    @property
    def is_held_out(self) -> bool:
        """Whether this combination of objects, style and background is kept out of all training."""
        return is_held_out(self.objects, self.style, self.background)


def is_held_out(objects: tuple[str, ...], style: str, background: str) -> bool:
    """One combination in eight is held out, chosen by a checksum so that every machine agrees."""
    return zlib.crc32("|".join((*sorted(objects), style, background)).encode()) % HELD_OUT_ONE_IN == 0


@lru_cache(maxsize=20_000)
def _scaled_sprite(style: str, index: int, size_px: int) -> np.ndarray:
    """One premultiplied sprite scaled to `size_px`: float32 [size, size, 4]."""
    sprite = load_sheet(style)[index]
    channels = [
        np.asarray(Image.fromarray(sprite[..., c]).resize((size_px, size_px), Image.Resampling.BOX, reducing_gap=None))
        if size_px < SPRITE_SIZE_PX
        else sprite[..., c]
        for c in range(4)
    ]
    return np.stack(channels, axis=-1)


def render(scene: Scene) -> np.ndarray:
    """Draw a scene: uint8 [64, 64, 3], sRGB."""
    canvas = np.empty((IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3), dtype=np.float32)
    canvas[:] = np.asarray(BACKGROUNDS[scene.background], dtype=np.float32) / 255.0
    names = all_objects()
    for name, (x, y), size in zip(scene.objects, scene.centers, scene.sizes, strict=True):
        sprite = _scaled_sprite(scene.style, names.index(name), size)
        left, top = x - size // 2, y - size // 2
        region = canvas[top : top + size, left : left + size]
        region *= 1.0 - sprite[..., 3:]
        region += sprite[..., :3]
    return (canvas.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def random_scene(
    world: World,
    rng: np.random.Generator,
    *,
    held_out: bool = False,
    two_share: float = TWO_SHARE,
    objects: tuple[str, ...] = (),
) -> Scene:
    """Draw one scene from the training combinations, or from the held-out ones.

    Args:
        world: what there is to draw.
        rng: explicit source of randomness.
        held_out: take only combinations that training never sees; otherwise only the others.
        two_share: probability of two objects, in 0..1.
        objects: fix the objects instead of drawing them.
    """
    while True:
        chosen = objects or tuple(
            rng.choice(world.objects, size=1 + int(rng.random() < two_share), replace=False).tolist()
        )
        style, background = str(rng.choice(world.styles)), str(rng.choice(world.backgrounds))
        if is_held_out(chosen, style, background) == held_out:
            return place(chosen, style, background, rng)


def place(objects: tuple[str, ...], style: str, background: str, rng: np.random.Generator) -> Scene:
    """Put the objects on the canvas with a little jitter: one in the middle, or two side by side in the caption's
    order."""
    if len(objects) == 1:
        size = int(rng.integers(42, 49))
        centers: tuple[tuple[int, int], ...] = ((32 + int(rng.integers(-4, 5)), 32 + int(rng.integers(-4, 5))),)
        return Scene(objects, style, background, centers, (size,))
    sizes = tuple(int(s) for s in rng.integers(27, 31, size=2))
    centers = tuple((x + int(rng.integers(-1, 2)), 32 + int(rng.integers(-5, 6))) for x in (16, 48))
    return Scene(objects, style, background, centers, sizes)


def with_article(words: str) -> str:
    """`an axe`, `a bomb`."""
    return ("an " if words[0] in "aeiou" else "a ") + words


SINGLE_TEMPLATES = (
    "{a_style_one} on {a_background} background",
    "{a_one} in {style} style on {a_background} background",
    "{a_style} picture of {a_one}, {background} background",
    "{a_style_one}, {background} background",
)
PAIR_TEMPLATES = (
    "{a_style_one} and {a_two} on {a_background} background",
    "{a_one} and {a_two} in {style} style on {a_background} background",
    "{a_style} picture of {a_one} and {a_two}, {background} background",
    "{a_style_one} next to {a_two}, {background} background",
)
# Captions that leave something out; used for a quarter of the training captions.
SHORT_SINGLE_TEMPLATES = ("{a_one}", "{a_style_one}", "{a_one} on {a_background} background")
SHORT_PAIR_TEMPLATES = (
    "{a_one} and {a_two}",
    "{a_style_one} and {a_two}",
    "{a_one} and {a_two} on {a_background} background",
)


def fill_template(template: str, words: tuple[str, ...], style: str, background: str) -> str:
    """Put object words, a style word and a background into a caption template."""
    return template.format(
        a_one=with_article(words[0]),
        a_style_one=with_article(f"{style} {words[0]}"),
        a_two=with_article(words[-1]),
        a_style=with_article(style),
        style=style,
        background=background,
        a_background=with_article(background),
    )


def caption(scene: Scene, rng: np.random.Generator, *, is_complete: bool = False, group_share: float = 0.1) -> str:
    """One caption of a scene.

    Args:
        scene: what is drawn.
        rng: explicit source of randomness.
        is_complete: always name object, style and background, by their usual words or synonyms.
        group_share: probability per object of saying only its group ("a weapon"); 0 when `is_complete`.
    """
    words = tuple(
        GROUP_WORDS[group_of(name)]
        if not is_complete and rng.random() < group_share
        else str(rng.choice(words_for(name)))
        for name in scene.objects
    )
    is_pair = len(words) == 2
    templates = PAIR_TEMPLATES if is_pair else SINGLE_TEMPLATES
    if not is_complete and rng.random() < 0.25:
        templates = SHORT_PAIR_TEMPLATES if is_pair else SHORT_SINGLE_TEMPLATES
    style = str(rng.choice(STYLE_WORDS[scene.style]))
    return fill_template(str(rng.choice(templates)), words, style, scene.background)


def vocabulary_words() -> tuple[str, ...]:
    """Every word that a caption can contain, sorted."""
    texts = [*GROUP_WORDS.values(), *BACKGROUNDS, *(w for words in STYLE_WORDS.values() for w in words)]
    texts += [words for name in all_objects() for words in words_for(name)]
    texts += [template.replace("{", " ").replace("}", " ") for template in (*SINGLE_TEMPLATES, *PAIR_TEMPLATES)]
    found = {word for text in texts for word in text.replace(",", " ").split() if "_" not in word}
    return tuple(sorted(found | {"a", "an", "photo", "image", "painting", "the", "of", "with", "two", "no"}))
