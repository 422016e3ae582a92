"""Concepts of the embedded world that a suite can ask to erase, a group of objects (`weapon`) or a style
(`style-cartoon`): their suites, and what they are called. Torch-free.
"""

from __future__ import annotations

from dataclasses import dataclass

from hfi.errors import ConfigError
from hfi.mini.vocabulary import GROUPS, STYLE_WORDS, STYLES
from hfi.mini.world import GROUP_WORDS, World, with_article

STYLE_PREFIX = "style-"


@dataclass(frozen=True)
class ConceptWords:
    """How people call a concept.

    Attributes:
        one: A picture's concept as one asks for it: "a weapon", "a picture in cartoon style".
        many: The same in the plural: "weapons", "pictures in cartoon style".
        shown: What such a picture shows: "a weapon", "cartoon style".
    """

    one: str
    many: str
    shown: str


def style_of(concept: str) -> str:
    """`cartoon` for `style-cartoon`; "" for a group of objects, or for no concept."""
    return concept.removeprefix(STYLE_PREFIX) if concept.startswith(STYLE_PREFIX) else ""


def named_suites(world: World | None = None) -> dict[str, str]:
    """Suite -> concept, such as `mini-weapons` -> `weapon` and `mini-style-cartoon` -> `style-cartoon`.

    Args:
        world: whose styles there are; None = every style that any embedded model may know.
    """
    styles = [f"{STYLE_PREFIX}{style}" for style in (world.styles if world else STYLES)]
    return {f"mini-{group}s": group for group in GROUPS} | {f"mini-{style}": style for style in styles}


def concept_of_suite(suite: str) -> str:
    """The concept of a named suite; "" for a suite from a file."""
    return named_suites().get(suite, "")


def suite_of_concept(concept: str, world: World | None = None) -> str:
    """The named suite about a concept.

    Raises:
        ConfigError: there is no such concept.
    """
    suites = {concept: suite for suite, concept in named_suites(world).items()}
    if concept not in suites:
        raise ConfigError(f"The embedded world has no concept {concept!r}: use {', '.join(suites)}.")
    return suites[concept]


def words_of_concept(concept: str) -> ConceptWords:
    """How people call a concept; "" = one that only the project's judgments know."""
    style = style_of(concept)
    if style:
        return ConceptWords(f"a picture in {style} style", f"pictures in {style} style", f"{style} style")
    if not concept:
        return ConceptWords("the concept", "the flagged concept", "the concept")
    word = GROUP_WORDS.get(concept, concept)
    return ConceptWords(with_article(word), f"{word}s", with_article(word))


def has_other_words(concept: str) -> bool:
    """Whether captions say this concept in more than one way; a group can always be called by its own word."""
    style = style_of(concept)
    return len(STYLE_WORDS.get(style, ())) > 1 if style else concept in GROUPS
