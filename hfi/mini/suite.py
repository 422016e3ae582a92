"""Prompts of the embedded world with what should be in their pictures: for collecting judgments, and for measuring.
Torch-free.

Prompts for measuring use combinations of object, style and background that neither the embedded model's training nor
any judgment,
inversion or erasure has seen; `world.is_held_out` says which.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from hfi.errors import InvalidInputError
from hfi.mini.vocabulary import STYLE_WORDS, words_for
from hfi.mini.world import (
    GROUP_WORDS,
    PAIR_TEMPLATES,
    SINGLE_TEMPLATES,
    World,
    fill_template,
    is_held_out,
)


@dataclass(frozen=True)
class ScenePrompt:
    """A prompt, what it asks for, and the seed of its picture."""

    prompt: str
    objects: tuple[str, ...]
    style: str
    background: str
    seed: int


def concept_prompts(
    world: World,
    group: str,
    count: int,
    *,
    first_seed: int,
    held_out: bool,
    pair_share: float = 0.25,
    group_word_share: float = 0.1,
) -> list[ScenePrompt]:
    """Prompts that name a member of `group`: alone, beside something harmless, or only by the group's word ("a
    weapon").

    Members take turns, so that each is asked for equally often.
    """
    rng = np.random.default_rng((first_seed, 1))
    members = world.in_group(group)
    others = [name for name in world.objects if name not in members]
    prompts = []
    for index in range(count):
        member = members[index % len(members)]
        objects: tuple[str, ...] = (member,)
        if rng.random() < pair_share:
            objects = (member, str(rng.choice(others)))
            objects = objects if rng.random() < 0.5 else objects[::-1]
        is_by_word = rng.random() < group_word_share
        prompts.append(
            _prompt(
                world,
                objects,
                rng,
                first_seed + index,
                held_out,
                group_word=GROUP_WORDS[group] if is_by_word else "",
                member=member,
            )
        )
    return prompts


def other_prompts(
    world: World, group: str, count: int, *, first_seed: int, held_out: bool, pair_share: float = 0.25
) -> list[ScenePrompt]:
    """Prompts that name nothing of `group`; the other objects take turns."""
    rng = np.random.default_rng((first_seed, 2))
    others = [name for name in world.objects if name not in world.in_group(group)]
    prompts = []
    for index in range(count):
        first = others[index % len(others)]
        objects: tuple[str, ...] = (first,)
        if rng.random() < pair_share:
            objects = (first, str(rng.choice([name for name in others if name != first])))
        prompts.append(_prompt(world, objects, rng, first_seed + index, held_out))
    return prompts


def style_prompts(
    world: World, style: str, count: int, *, first_seed: int, held_out: bool, pair_share: float = 0.25
) -> list[ScenePrompt]:
    """Prompts that ask for `style`; all objects take turns but those without a combination in it.

    Args:
        world: what there is to draw.
        style: one of the world's styles.
        count: how many prompts.
        first_seed: seed of the first picture; the next ones follow.
        held_out: take only combinations that training never sees; otherwise only the others.
        pair_share: probability of a second object, in 0..1.

    Raises:
        InvalidInputError: the world has no such style.
    """
    _check_style(world, style)
    rng = np.random.default_rng((first_seed, 5))
    return _prompts_in_styles(world, (style,), count, rng, first_seed, held_out, pair_share)


def other_style_prompts(
    world: World, style: str, count: int, *, first_seed: int, held_out: bool, pair_share: float = 0.25
) -> list[ScenePrompt]:
    """Prompts that ask for any style but `style`, with the same objects in turn; otherwise as `style_prompts`.

    Raises:
        InvalidInputError: the world has no such style, or no other.
    """
    _check_style(world, style)
    rng = np.random.default_rng((first_seed, 6))
    others = tuple(name for name in world.styles if name != style)
    return _prompts_in_styles(world, others, count, rng, first_seed, held_out, pair_share)


def single_prompts(world: World, count: int, *, first_seed: int) -> list[ScenePrompt]:
    """Held-out prompts with one object each, all objects in turn: how the embedded model itself is measured."""
    rng = np.random.default_rng((first_seed, 3))
    return [_prompt(world, (world.objects[i % len(world.objects)],), rng, first_seed + i, True) for i in range(count)]


def pair_prompts(world: World, count: int, *, first_seed: int) -> list[ScenePrompt]:
    """Held-out prompts with two objects each."""
    rng = np.random.default_rng((first_seed, 4))
    return [
        _prompt(world, tuple(rng.choice(world.objects, size=2, replace=False).tolist()), rng, first_seed + i, True)
        for i in range(count)
    ]


def _check_style(world: World, style: str) -> None:
    if style not in world.styles:
        raise InvalidInputError(f"There is no style {style!r} in this embedded world: use {', '.join(world.styles)}.")


def _prompts_in_styles(
    world: World,
    styles: tuple[str, ...],
    count: int,
    rng: np.random.Generator,
    first_seed: int,
    held_out: bool,
    pair_share: float,
) -> list[ScenePrompt]:
    """Prompts of these styles alone; nobody is asked for, alone or in a pair, who has no combination there."""

    def has_any(*objects: str) -> bool:
        return bool(_combinations(world, objects, held_out, styles))

    members = [name for name in world.objects if has_any(name)]
    if not members:
        raise InvalidInputError(f"This embedded world has no prompts in the styles {', '.join(styles) or '(none)'}.")
    prompts = []
    for index, first in zip(range(count), cycle(members), strict=False):
        objects: tuple[str, ...] = (first,)
        if rng.random() < pair_share:
            partners = [name for name in world.objects if name != first and has_any(first, name)]
            objects = (first, str(rng.choice(partners))) if partners else objects
        prompts.append(_prompt(world, objects, rng, first_seed + index, held_out, styles=styles))
    return prompts


def _combinations(
    world: World, objects: tuple[str, ...], held_out: bool, styles: Collection[str]
) -> list[tuple[str, str]]:
    """(style, background) of these objects that are held out, or that are not."""
    return [
        (s, b)
        for s in world.styles
        for b in world.backgrounds
        if s in styles and is_held_out(objects, s, b) == held_out
    ]


def _prompt(
    world: World,
    objects: tuple[str, ...],
    rng: np.random.Generator,
    seed: int,
    held_out: bool,
    *,
    group_word: str = "",
    member: str = "",
    styles: Collection[str] | None = None,
) -> ScenePrompt:
    """Draw style and background from the held-out combinations of these objects (or from the others) and word it.

    `styles` are those that may be drawn, None = all; with some named there must be a combination.
    """
    combinations = _combinations(world, objects, held_out, world.styles if styles is None else styles)
    if not combinations:  # rare: none of an object's 24 combinations is held out
        combinations = [(s, b) for s in world.styles for b in world.backgrounds]
    style, background = combinations[int(rng.integers(len(combinations)))]
    words = tuple(group_word if group_word and name == member else str(rng.choice(words_for(name))) for name in objects)
    template = str(rng.choice(PAIR_TEMPLATES if len(objects) == 2 else SINGLE_TEMPLATES))
    text = fill_template(template, words, str(rng.choice(STYLE_WORDS[style])), background)
    return ScenePrompt(text, objects, style, background, seed)
