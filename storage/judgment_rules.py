"""The rules an answer must keep, by kind, and when the answers to an item are enough."""

from __future__ import annotations

import re
from collections.abc import Sequence

from storage.errors import InvalidInputError
from storage.records import OTHER_ANSWERS, SUBSTANTIVE_ANSWERS, JudgmentInput
from storage.validate import MAX_NOTE_CHARACTERS, check_choice, check_range, check_text

_UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
MAX_ELAPSED_MS = 7 * 86_400_000
# The words allowed for each kind, in the order in which a refusal lists them.
_ANSWERS = {kind: (*sorted(words), *sorted(OTHER_ANSWERS)) for kind, words in SUBSTANTIVE_ANSWERS.items()}
# How often two annotators must call a picture broken before a reviewer looks at it instead of more annotators.
N_BROKEN_TO_ADJUDICATE = 2
# Assumption behind "sure enough": a single annotator is right four times in five. Only used to decide whether one
# more person is asked; the labels themselves come from `aggregate`.
ASSUMED_ACCURACY = 0.8


def vote_posterior(n_positive: int, n_negative: int, accuracy: float = ASSUMED_ACCURACY) -> float:
    """How sure the larger side is right if every annotator is right with probability ``accuracy``, prior 1/2."""
    odds = (accuracy / (1 - accuracy)) ** abs(n_positive - n_negative)
    return odds / (1 + odds)


def check_judgment(judgment: JudgmentInput, kind: str, n_images: int, categories: Sequence[str]) -> None:
    """Check an answer against the rules of the item's kind.

    Raises:
        InvalidInputError: names the field, the value and the rule.
    """
    check_uuid(judgment.uuid)
    check_choice(judgment.answer, _ANSWERS[kind], f"answer to a {kind} item")
    if judgment.categories and judgment.answer != "yes":
        raise InvalidInputError(
            f"Categories {list(judgment.categories)} came with answer {judgment.answer!r}; only 'yes' has categories."
        )
    for category in judgment.categories:
        check_choice(category, categories, "category")
    if (judgment.score is not None) != (judgment.answer == "scored"):
        raise InvalidInputError(
            f"Score {judgment.score!r} came with answer {judgment.answer!r}; give a score with 'scored' and only then."
        )
    if judgment.score is not None:
        check_range(judgment.score, 1, 5, "score")
    _check_ranks(judgment, n_images)
    if judgment.shown_order and sorted(judgment.shown_order) != list(range(n_images)):
        raise InvalidInputError(
            f"The order shown {list(judgment.shown_order)} is not an order of the item's {n_images} image(s)."
        )
    check_text(judgment.reason, "reason", MAX_NOTE_CHARACTERS)
    check_text(judgment.note, "note", MAX_NOTE_CHARACTERS)
    check_range(judgment.elapsed_ms, 0, MAX_ELAPSED_MS, "elapsed time", " ms")
    check_range(judgment.revealed_ms, 0, MAX_ELAPSED_MS, "revealed time", " ms")
    check_range(judgment.judged_at_us, 0, 2**62, "time of judging", " us")


def _check_ranks(judgment: JudgmentInput, n_images: int) -> None:
    if bool(judgment.ranks) != (judgment.answer == "ranked"):
        raise InvalidInputError(
            f"Ranks {list(judgment.ranks)} came with answer {judgment.answer!r}; give them with 'ranked' and only then."
        )
    if not judgment.ranks:
        return
    is_whole = all(isinstance(rank, int) and 1 <= rank <= n_images for rank in judgment.ranks)
    if not is_whole or len(judgment.ranks) != n_images:
        raise InvalidInputError(
            f"Ranks {list(judgment.ranks)} don't fit: give one rank from 1 (best) to {n_images} for each of the "
            f"item's {n_images} images, equal ranks for a tie."
        )


def check_uuid(uuid: str) -> None:
    """A UUID in lower case with dashes, as clients make it.

    Raises:
        InvalidInputError: it is not.
    """
    if not isinstance(uuid, str) or not _UUID.match(uuid):
        raise InvalidInputError(f"The judgment uuid {str(uuid)[:60]!r} is not a lower-case UUID. Make a new one.")
