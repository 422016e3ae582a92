"""Text that people typed: cleaned on its way in, made harmless on its way out."""

from __future__ import annotations

from functools import lru_cache

from markdown_it import MarkdownIt

from storage.validate import check_text


def clean_text(text: str, max_characters: int = 2000) -> str:
    """NFC, without control and direction-changing characters, without blanks at either end.

    Raises:
        InvalidInputError: too long.
    """
    return check_text(text, "text", max_characters).strip()


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    # No HTML of the author's own, and no pictures: they would be fetched from other hosts.
    return MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


@lru_cache(maxsize=64)
def render_markdown(text: str) -> str:
    """Markdown as harmless HTML: tags are shown as typed, links lead to http(s) and mailto only."""
    return str(_markdown().render(text))
