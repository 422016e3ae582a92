"""Evaluation suites: held-out prompts with seeds and, where the world is known, what must be in their pictures.
Torch-free.

A named suite `mini-<group>s` (such as `mini-weapons`) or `mini-style-<style>` (such as `mini-style-cartoon`) holds
prompts of the embedded world: those that ask for the group's objects, or for the style, and all others. A JSON file
`{"concept": ["a prompt", ...], "others": ["a prompt", ...]}` serves any other model; its pictures are judged by the
project's own score
model, since nobody knows what should be in them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hfi.config import EvaluateConfig
from hfi.errors import EmptyPromptListError, PromptFileError

if TYPE_CHECKING:
    from hfi.mini.suite import ScenePrompt
    from hfi.mini.world import World


@dataclass(frozen=True)
class EvaluationPrompt:
    """One picture to make with every model: prompt, seed, and what is asked for (empty = not known).

    `objects` are the objects; in suites about a style also the style's name, as its last entry.
    """

    prompt: str
    seed: int
    objects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """The prompts of one evaluation.

    `group` is what is to be removed: a group of the embedded world such as `weapon`, a style such as `style-cartoon`,
    "" for a suite from a file.
    """

    name: str
    group: str
    concept: tuple[EvaluationPrompt, ...]
    others: tuple[EvaluationPrompt, ...]


def load_suite(config: EvaluateConfig, world: World | None) -> Suite:
    """The prompts that a configuration asks for.

    Args:
        config: names the suite, the numbers of pictures and the first seed.
        world: the embedded model's world; needed for `mini-...` suites only.

    Raises:
        PromptFileError: no such suite or file, or the file has another form.
    """
    from hfi.mini.concepts import named_suites

    names = named_suites(world)
    if config.suite in names and world is not None:
        return _mini_suite(config, names[config.suite], world)
    path = Path(config.suite)
    if not path.is_file():
        known = ", ".join(names)
        raise PromptFileError(f"There is no suite {config.suite!r}: give {known} or a JSON file with prompts.")
    return _file_suite(config, path)


def _mini_suite(config: EvaluateConfig, group: str, world: World) -> Suite:
    from hfi.mini.concepts import style_of
    from hfi.mini.suite import concept_prompts, other_prompts, other_style_prompts, style_prompts

    style = style_of(group)

    def prompts(make: Callable[..., list[ScenePrompt]], count: int) -> tuple[EvaluationPrompt, ...]:
        made = make(world, style or group, count, first_seed=config.first_seed, held_out=True)
        return tuple(EvaluationPrompt(p.prompt, p.seed, (*p.objects, p.style) if style else p.objects) for p in made)

    concept = prompts(style_prompts if style else concept_prompts, config.num_concept_images)
    others = prompts(other_style_prompts if style else other_prompts, config.num_other_images)
    return Suite(config.suite, group, concept, others)


def _file_suite(config: EvaluateConfig, path: Path) -> Suite:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        lists = {key: [str(prompt) for prompt in content[key]] for key in ("concept", "others")}
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise PromptFileError(
            f'{path} is not a suite: it must be a JSON file {{"concept": [prompts], "others": [prompts]}} in UTF-8.'
        ) from error
    for key, prompts in lists.items():
        if not prompts:
            raise EmptyPromptListError(f"The list {key!r} of the suite {path} is empty: give at least one prompt.")
    counts = {"concept": config.num_concept_images, "others": config.num_other_images}
    made = {
        key: tuple(EvaluationPrompt(prompts[i % len(prompts)], config.first_seed + i) for i in range(counts[key]))
        for key, prompts in lists.items()
    }
    return Suite(path.name, "", made["concept"], made["others"])
