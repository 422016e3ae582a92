"""Words of prompts: which ones tell that a picture will be flagged, and where they stand in a prompt.
Never imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import comb

MIN_LIFT = 3.0  # a concept word is three times as common in flagged prompts as in unflagged ones
MIN_COUNT = 2  # flagged prompts that say it
MAX_CHANCE = 0.01  # chance that flags given at random would meet the word as often
WORD = re.compile(r"[^\W\d_]+")
PIECE = re.compile(r"[^\W\d_]+|[^\w\s]")
SLOT = "{}"  # where a caption's placeholder will stand


def words_of(prompt: str) -> list[str]:
    """The words of a prompt, in lower case."""
    return WORD.findall(prompt.lower())


def concept_words(flagged: Sequence[str], unflagged: Sequence[str]) -> set[str]:
    """Words that decide whether a prompt's picture is flagged, and the words that come with them.

    In rounds: the words that are common in flagged prompts and rare in unflagged ones; then prompts that say one are
    explained and put aside, and the rest is looked at again. So a word that a model often fails to draw ("a weapon":
    half of its pictures show none and are not flagged) is found too, and with "bow" also the "arrow" beside it.
    """
    flagged_sets, unflagged_sets = ([set(words_of(prompt)) for prompt in prompts] for prompts in (flagged, unflagged))
    found: set[str] = set()
    while True:
        rest, rest_elsewhere = ([w for w in sets if not w & found] for sets in (flagged_sets, unflagged_sets))
        new = {word for word in set().union(*rest) if _is_telling(_counts(word, rest, rest_elsewhere), MAX_CHANCE)}
        if not new:
            break
        found |= new
    companions = {w for w in set().union(*flagged_sets) if _is_telling(_counts(w, flagged_sets, rest_elsewhere), 1.0)}
    return found | companions


def _counts(word: str, flagged: Sequence[set[str]], unflagged: Sequence[set[str]]) -> tuple[int, int, int, int]:
    """Flagged prompts that say a word, unflagged ones that do, all flagged ones, all unflagged ones."""
    return (
        sum(word in words for words in flagged),
        sum(word in words for words in unflagged),
        len(flagged),
        len(unflagged),
    )


def _is_telling(counts: tuple[int, int, int, int], max_chance: float) -> bool:
    """Whether a word is common in flagged prompts and rare in the others; lift has half a prompt added to either."""
    count, count_elsewhere, num_flagged, num_unflagged = counts
    lift = (count + 0.5) / (num_flagged + 1) / ((count_elsewhere + 0.5) / (num_unflagged + 1))
    is_common = count >= MIN_COUNT and lift >= MIN_LIFT
    num_with_word, num_prompts = count + count_elsewhere, num_flagged + num_unflagged
    return is_common and chance_of_count(count, num_with_word, num_flagged, num_prompts) <= max_chance


def chance_of_count(count: int, num_with_word: int, num_flagged: int, num_prompts: int) -> float:
    """Chance that at least `count` of the flagged prompts say a word if flags fall at random (Fisher's exact test)."""
    most = min(num_with_word, num_flagged)
    ways = sum(
        comb(num_flagged, k) * comb(num_prompts - num_flagged, num_with_word - k) for k in range(count, most + 1)
    )
    return ways / comb(num_prompts, num_with_word)


def says_any(prompt: str, words: set[str]) -> bool:
    """Whether a prompt says one of the words."""
    return not words.isdisjoint(words_of(prompt))


def caption_of(prompt: str, concept: set[str]) -> str:
    """The prompt with SLOT in place of its concept words: "a cartoon fox" -> "a {} fox", a template for inversion.

    Of several runs of concept words each becomes a slot ("a drawn gun and a drawn key"). Empty where the prompt says no
    such word, for then nothing tells what of it is the concept.

    Args:
        prompt: What a flagged picture was made with.
        concept: Concept words, in lower case.
    """
    places = [match.span() for match in PIECE.finditer(prompt)]
    for first, behind in reversed(runs_of([prompt[start:end] for start, end in places], concept)):
        prompt = f"{prompt[: places[first][0]]}{SLOT}{prompt[places[behind - 1][1] :]}"
    return prompt if SLOT in prompt else ""


def runs_of(pieces: Sequence[str], concept: set[str]) -> list[tuple[int, int]]:
    """Where runs of concept words begin and end, one other word between two of them included."""
    runs: list[tuple[int, int]] = []
    for place in (k for k, piece in enumerate(pieces) if piece.lower() in concept):
        if runs and place - runs[-1][1] <= 1:
            runs[-1] = (runs[-1][0], place + 1)
        else:
            runs.append((place, place + 1))
    return runs
