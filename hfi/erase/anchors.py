"""What a target prompt is mapped to: nothing, or the rest of the prompt. Never imports torch.

Mapped to the empty prompt, a target loses its style and background with its concept, and the retain term must win
them back. Mapped to the rest of its own prompt, only the concept is moved. (Ours; ESD's `erase_from`, arXiv 2303.07345,
keeps a named concept in the same way.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MIN_LIFT = 3.0  # a concept word is three times as common in flagged prompts as in unflagged ones
MIN_COUNT = 2  # flagged prompts that say it
WORD = re.compile(r"[^\W\d_]+")


def words_of(prompt: str) -> list[str]:
    """The words of a prompt, in lower case."""
    return WORD.findall(prompt.lower())


def concept_words(flagged: Sequence[str], unflagged: Sequence[str]) -> set[str]:
    """Words that flagged prompts say and unflagged ones hardly do, by lift with half a prompt added to either count."""
    flagged_sets, unflagged_sets = ([set(words_of(prompt)) for prompt in prompts] for prompts in (flagged, unflagged))
    found = set()
    for word in set().union(*flagged_sets):
        count, count_elsewhere = (sum(word in words for words in sets) for sets in (flagged_sets, unflagged_sets))
        lift = (count + 0.5) / (len(flagged) + 1) / ((count_elsewhere + 0.5) / (len(unflagged) + 1))
        if count >= MIN_COUNT and lift >= MIN_LIFT:
            found.add(word)
    return found


def without_concept(prompt: str, words: set[str], placeholders: Sequence[str] = ()) -> str:
    """The prompt with placeholders and concept words taken out; the rest stays as it was."""
    for placeholder in placeholders:
        prompt = prompt.replace(placeholder, "")
    rest = WORD.sub(lambda match: "" if match.group().lower() in words else match.group(), prompt)
    return re.sub(r"\s+", " ", rest).strip()
