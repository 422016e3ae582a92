"""The rules that names, texts and numbers must keep, each refusal naming the value, the rule and the remedy."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from storage.errors import InvalidInputError

MAX_PROMPT_CHARACTERS = 2000
MAX_NOTE_CHARACTERS = 2000
_NAME = re.compile(r"^[\w .-]{1,40}$")
# Cf holds the invisible and direction-changing characters; the zero-width joiner stays, emoji need it.
_KEPT_FORMAT_CHARACTERS = {"\u200d"}
_KEPT_CONTROL_CHARACTERS = {"\n", "\t"}


def check_name(value: str, what: str) -> str:
    """A name of 1 to 40 letters, digits, blanks and ``_ . -``, not blank at either end.

    Raises:
        InvalidInputError: it is not.
    """
    if not isinstance(value, str) or not _NAME.match(value) or value != value.strip():
        raise InvalidInputError(
            f"The {what} {value!r} is not allowed: use 1 to 40 letters, digits, blanks, dots, dashes or underscores, "
            "without a blank at either end."
        )
    return unicodedata.normalize("NFC", value)


def check_text(value: str, what: str, max_characters: int = MAX_PROMPT_CHARACTERS) -> str:
    """A text in NFC with control and direction-changing characters removed.

    Raises:
        InvalidInputError: it is longer than ``max_characters`` or not a text.
    """
    if not isinstance(value, str):
        raise InvalidInputError(f"The {what} must be a text, got {type(value).__name__}.")
    if len(value) > max_characters:
        raise InvalidInputError(
            f"The {what} has {len(value)} characters, the limit is {max_characters}. Shorten it: {value[:60]!r} …"
        )
    if value.isascii() and value.isprintable():
        return value
    text = unicodedata.normalize("NFC", value)
    if text.isprintable():
        return text
    return "".join(character for character in text if _is_kept(character))


def _is_kept(character: str) -> bool:
    category = unicodedata.category(character)
    if category == "Cc":
        return character in _KEPT_CONTROL_CHARACTERS
    return category not in ("Cf", "Cs") or character in _KEPT_FORMAT_CHARACTERS


def check_choice(value: str, choices: Iterable[str], what: str) -> str:
    """One of the words allowed.

    Raises:
        InvalidInputError: it is none of them.
    """
    allowed = tuple(choices)
    if value not in allowed:
        listing = ", ".join(allowed) or "none are defined"
        raise InvalidInputError(f"The {what} {value!r} is unknown; choose one of: {listing}.")
    return value


def check_range(value: float, low: float, high: float, what: str, unit: str = "") -> None:
    """A number within its limits, both included.

    Raises:
        InvalidInputError: it is outside, or not a number.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise InvalidInputError(f"The {what} is {value!r}; it must be from {low} to {high}{unit}.")
