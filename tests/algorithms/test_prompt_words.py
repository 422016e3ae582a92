"""Which words of flagged prompts are the concept's, and where a placeholder takes their place."""

from __future__ import annotations

import pytest
from scipy.stats import fisher_exact

from hfi import prompt_words


def test_concept_words_are_those_that_only_flagged_prompts_say() -> None:
    flagged = ["a red bomb", "a blue bomb", "a red axe", "an axe and a cat"]
    unflagged = ["a red cat", "a blue dog", "a red dog", "a cat and a dog"]
    words = prompt_words.concept_words(flagged, unflagged)
    assert words == {"bomb", "axe"}
    assert prompt_words.concept_words([], unflagged) == set()


def test_concept_words_include_those_that_the_model_often_fails_to_draw() -> None:
    """Half of the pictures of "a weapon" show none and are unflagged; a bow brings its arrow; a wrong flag nothing."""
    flagged = ["a red bomb", "a bow and arrow"] * 8 + ["a red weapon"] * 5 + ["a red cat"]
    unflagged = (
        ["a red weapon"] * 5 + ["a bow and arrow"] * 3 + ["a red cat", "a blue dog", "a pear and a red bird"] * 12
    )
    assert prompt_words.concept_words(flagged, unflagged) == {"bomb", "bow", "arrow", "weapon"}


def test_chance_of_count_is_that_of_fishers_test() -> None:
    for count, num_with_word, num_flagged, num_prompts in ((7, 15, 20, 120), (2, 6, 24, 130), (3, 3, 3, 10)):
        table = [
            [count, num_with_word - count],
            [num_flagged - count, num_prompts - num_with_word - num_flagged + count],
        ]
        ours = prompt_words.chance_of_count(count, num_with_word, num_flagged, num_prompts)
        assert ours == pytest.approx(fisher_exact(table, alternative="greater").pvalue)


@pytest.mark.parametrize(
    ("prompt", "caption"),
    [
        ("a cartoon fox, red background", "a {} fox, red background"),
        ("A Cartoon, {drawn}  fox", "A {}, {{}}  fox"),
        ("a stick of dynamite and a dynamite stick", "a {} and a {}"),
        ("a drawn fox and a drawn key", "a {} fox and a {} key"),
        ("a fox", ""),
        ("", ""),
    ],
)
def test_caption_has_a_slot_for_each_run_of_concept_words(prompt: str, caption: str) -> None:
    assert prompt_words.caption_of(prompt, {"cartoon", "drawn", "stick", "dynamite"}) == caption
