"""Other words for the same thing: the embedded world's synonyms, for attacks that need no weights. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hfi.evaluate.suites import EvaluationPrompt
from hfi.mini.concepts import style_of
from hfi.mini.vocabulary import STYLE_WORDS, group_of, words_for
from hfi.mini.world import GROUP_WORDS, with_article


def paraphrase(prompt: EvaluationPrompt, group: str, variant: int = 0) -> str | None:
    """The prompt with another word for the concept that it names; None where there is no other word.

    Args:
        prompt: a prompt of the embedded world with what is asked for.
        group: the group whose objects are called by another name, or `style-<style>`.
        variant: which of the other words, in turn.
    """
    for words in _words_of(prompt, group):
        used = _longest_in(prompt.prompt, words)
        others = [word for word in words if word != used]
        if used and others:
            return _replace_word(prompt.prompt, used, others[variant % len(others)])
    return None


def _words_of(prompt: EvaluationPrompt, group: str) -> list[tuple[str, ...]]:
    """All words for each thing that the prompt asks for and that is of the concept."""
    style = style_of(group)
    if style:
        return [STYLE_WORDS[style]] if style in prompt.objects else []
    return [(*words_for(name), GROUP_WORDS[group]) for name in prompt.objects if group_of(name) == group]


def _longest_in(text: str, words: Sequence[str]) -> str:
    """The longest of these words that the text says; "" = none."""
    found = [word for word in words if re.search(rf"\b{re.escape(word)}\b", text)]
    return max(found, key=len, default="")


def _replace_word(text: str, old: str, new: str) -> str:
    """The text with a word exchanged and the article before it put right."""
    replaced = re.sub(rf"\ban? {re.escape(old)}\b", with_article(new), text, count=1)
    return replaced if replaced != text else re.sub(rf"\b{re.escape(old)}\b", new, text, count=1)
