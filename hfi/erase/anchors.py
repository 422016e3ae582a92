"""What a target is mapped to: nothing, the rest of the prompt, or the prompt with another word in the concept's place.
Never imports torch.

Mapped to the empty prompt, a target loses its style and background with its concept, and the retain term must win
them back. Mapped to the rest of its own prompt, only the concept is moved; but of two things one is left, and a
picture without a word for its style is still drawn in one, which may be the concept's. With another word in its place
("a fox and a gun" becomes "a fox and a key", "a cartoon fox" becomes "a flat fox") something else is drawn there.
(Ours; ESD's `erase_from`, arXiv 2303.07345, keeps a named concept, and Concept Ablation, arXiv 2303.13516, draws a
named other one.)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hfi.prompt_words import PIECE, WORD, runs_of, words_of

MAX_SHARE_SAYING = 0.75  # of the retained prompts; what more of them say ("on", "background") stands for nothing
MIN_NEIGHBOURS = 2  # of four that a word's place must share with the concept's
STRIDE = 7919  # a prime: neighbouring turns take words far apart
ARTICLES = ("a", "an")  # one and the same where a word is looked for


def without_concept(prompt: str, words: set[str], placeholders: Sequence[str] = ()) -> str:
    """The prompt with placeholders and concept words taken out; the rest stays as it was."""
    for placeholder in placeholders:
        prompt = prompt.replace(placeholder, "")
    rest = WORD.sub(lambda match: "" if match.group().lower() in words else match.group(), prompt)
    return re.sub(r"\s+", " ", rest).strip()


@dataclass(frozen=True)
class Substitutes:
    """Words of retained prompts, each with its two neighbours on either side.

    Attributes:
        pieces: Every word and mark that occurs; what follows are their indices.
        words: The word at each place, shape (places,).
        neighbours: The pieces before and behind it, shape (places, 4).
    """

    pieces: list[str]
    words: np.ndarray
    neighbours: np.ndarray


def collect_substitutes(retained: Sequence[str]) -> Substitutes:
    """Every word of the retained prompts but those that most of them say."""
    prompts = list(dict.fromkeys(retained))
    counts = Counter(word for prompt in prompts for word in set(words_of(prompt)))
    common = {word for word, count in counts.items() if count > max(1, MAX_SHARE_SAYING * len(prompts))}
    numbers: dict[str, int] = {}
    words, neighbours = [], []
    for prompt in prompts:
        pieces = _with_ends(PIECE.findall(prompt))
        ids = [numbers.setdefault(piece, len(numbers)) for piece in pieces]
        for k in range(2, len(pieces) - 2):
            if WORD.fullmatch(pieces[k]) and pieces[k] not in common | {ARTICLES[0]}:
                words.append(ids[k])
                neighbours.append([ids[k - 2], ids[k - 1], ids[k + 1], ids[k + 2]])
    return Substitutes(list(numbers), np.array(words, int), np.array(neighbours, int).reshape(-1, 4))


def with_substitutes(prompt: str, concept: set[str], substitutes: Substitutes, turn: int = 0) -> str:
    """The prompt with each run of concept words changed for a word that retained prompts say in such a place.

    That is one with as many of the four neighbours as can be had; of several one by `turn`. Words that the prompt says
    already are not taken. A run may skip one word ("stick of dynamite"). It is left out where no word has been said
    with two of its neighbours.

    Args:
        prompt: The target.
        concept: Concept words, in lower case.
        substitutes: Of the retained prompts, none of which says the concept.
        turn: Number of the target, so that those alike are given different words.
    """
    pieces = PIECE.findall(prompt)
    around, numbers = _with_ends(pieces), {piece: number for number, piece in enumerate(substitutes.pieces)}
    taken = [numbers[word] for word in concept.union(around) if word in numbers]
    is_free = ~np.isin(substitutes.words, taken)
    changed: list[str] = []
    end = 0
    for first, behind in runs_of(pieces, concept):
        changed += pieces[end:first]
        neighbours = [*around[first : first + 2], *around[behind + 2 : behind + 4]]
        ids = np.array([numbers.get(piece, -1) for piece in neighbours])
        alike = np.where(is_free, (substitutes.neighbours == ids).sum(1), 0)
        places = np.flatnonzero(alike == alike.max(initial=MIN_NEIGHBOURS))
        if len(places):
            word = substitutes.pieces[substitutes.words[places[turn * STRIDE % len(places)]]]
            if changed and changed[-1].lower() in ARTICLES:
                changed[-1] = changed[-1][0] + ("n" if word[0] in "aeiou" else "")
            changed.append(word)
        end = behind
    return re.sub(r"\s+(?=[^\w\s])", "", " ".join([*changed, *pieces[end:]]))


def _with_ends(pieces: Sequence[str]) -> list[str]:
    """Lower case, one article for all, and two pieces of nothing at either end."""
    return ["", "", *(ARTICLES[0] if piece.lower() in ARTICLES else piece.lower() for piece in pieces), "", ""]
