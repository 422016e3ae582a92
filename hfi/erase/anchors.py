"""What a target prompt is mapped to: nothing, the rest of the prompt, or a prompt like it. Never imports torch.

Mapped to the empty prompt, a target loses its style and background with its concept, and the retain term must win
them back. Mapped to the rest of its own prompt, only the concept is moved; but of two things one is left, and the
model learns to leave out one of any two. Mapped to the nearest prompt that must not change ("a fox and a gun" to "a fox
and a key"), it learns to draw something else in the concept's place. (Ours; ESD's `erase_from`, arXiv 2303.07345, keeps
a named concept, and Concept Ablation, arXiv 2303.13516, draws a named other one.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import comb, log

import numpy as np

MIN_LIFT = 3.0  # a concept word is three times as common in flagged prompts as in unflagged ones
MIN_COUNT = 2  # flagged prompts that say it
MAX_CHANCE = 0.01  # chance that flags given at random would meet the word as often
LENGTH_COST = 0.5  # of each word more or less than the target has, where a lacking word costs the log of its rarity
WORD = re.compile(r"[^\W\d_]+")


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


def without_concept(prompt: str, words: set[str], placeholders: Sequence[str] = ()) -> str:
    """The prompt with placeholders and concept words taken out; the rest stays as it was."""
    for placeholder in placeholders:
        prompt = prompt.replace(placeholder, "")
    rest = WORD.sub(lambda match: "" if match.group().lower() in words else match.group(), prompt)
    return re.sub(r"\s+", " ", rest).strip()


def nearest_prompts(targets: Sequence[str], rests: Sequence[str], retained: Sequence[str]) -> list[str]:
    """For each target the retained prompt that says the rest of it best, at the target's own length; ties in turn.

    What a retained prompt lacks of the rest costs by its rarity among the retained: log(n / number that say it). A rest
    of which no retained prompt says anything, and one without words, stays as it is.

    Args:
        targets: prompts to erase.
        rests: what is left of each without the concept (`without_concept`).
        retained: prompts that must not change, none of which says the concept.
    """
    prompts = list(dict.fromkeys(retained))
    lengths = np.array([len(words_of(prompt)) for prompt in prompts])
    lists: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        for word in set(words_of(prompt)):
            lists.setdefault(word, []).append(index)
    saying = {word: np.array(indices) for word, indices in lists.items()}
    nearest = []
    for turn, (target, rest) in enumerate(zip(targets, rests, strict=True)):
        known = sorted(set(words_of(rest)) & saying.keys())
        if not known:
            nearest.append(rest)
            continue
        costs = LENGTH_COST * np.abs(lengths - len(words_of(target)))
        for word in known:  # one that nobody says is lacked by all alike
            costs[saying[word]] -= log(len(prompts) / len(saying[word]))
        best = np.flatnonzero(costs <= costs.min() + 1e-9)
        nearest.append(prompts[best[turn % len(best)]])
    return nearest
