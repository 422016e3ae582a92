"""Which words of flagged prompts are the concept's, what is left of a prompt without them, what takes their place."""

from __future__ import annotations

import pytest
from scipy.stats import fisher_exact

from hfi.erase import anchors


def test_concept_words_are_those_that_only_flagged_prompts_say() -> None:
    flagged = ["a red bomb", "a blue bomb", "a red axe", "an axe and a cat"]
    unflagged = ["a red cat", "a blue dog", "a red dog", "a cat and a dog"]
    words = anchors.concept_words(flagged, unflagged)
    assert words == {"bomb", "axe"}
    assert anchors.without_concept("an Axe and a cat", words) == "an and a cat"
    assert anchors.without_concept("a <concept>, red bomb", words, ["<concept>"]) == "a , red"
    assert anchors.concept_words([], unflagged) == set()


def test_concept_words_include_those_that_the_model_often_fails_to_draw() -> None:
    """Half of the pictures of "a weapon" show none and are unflagged; a bow brings its arrow; a wrong flag nothing."""
    flagged = ["a red bomb", "a bow and arrow"] * 8 + ["a red weapon"] * 5 + ["a red cat"]
    unflagged = (
        ["a red weapon"] * 5 + ["a bow and arrow"] * 3 + ["a red cat", "a blue dog", "a pear and a red bird"] * 12
    )
    assert anchors.concept_words(flagged, unflagged) == {"bomb", "bow", "arrow", "weapon"}


def test_chance_of_count_is_that_of_fishers_test() -> None:
    for count, num_with_word, num_flagged, num_prompts in ((7, 15, 20, 120), (2, 6, 24, 130), (3, 3, 3, 10)):
        table = [
            [count, num_with_word - count],
            [num_flagged - count, num_prompts - num_with_word - num_flagged + count],
        ]
        ours = anchors.chance_of_count(count, num_with_word, num_flagged, num_prompts)
        assert ours == pytest.approx(fisher_exact(table, alternative="greater").pvalue)


def test_another_word_takes_the_concepts_place_and_the_rest_stays() -> None:
    kept = ["a fox and a key", "a fox and a cup", "a flat cat on an orange sofa", "an icon key, a drop of oil"]
    substitutes = anchors.collect_substitutes(kept)

    def swapped(prompt: str, *words: str) -> set[str]:
        return {anchors.with_substitutes(prompt, set(words), substitutes, turn) for turn in range(9)}

    assert swapped("a fox and a gun", "gun") == {"a fox and a key", "a fox and a cup"}
    assert swapped("a fox and a gun, a key", "gun") == {"a fox and a cup, a key"}, "nothing that is there already"
    assert swapped("a drawn cat on an orange sofa", "drawn") == {"a flat cat on an orange sofa"}
    assert swapped("a drawn key", "drawn") == {"an icon key"}
    assert swapped("a stick of dynamite on an orange sofa", "stick", "dynamite") == {"a fox on an orange sofa"}
    assert swapped("A Gun!", "gun") >= {"A cup!", "An icon!"}, "any word at all, and the article that goes with it"
    assert swapped("the sea", "gun") == {"the sea"}
    assert swapped("holding a gun in the rain", "gun") == {"holding a in the rain"}, "nothing is said in such a place"
    assert anchors.with_substitutes("a gun", {"gun"}, anchors.collect_substitutes([])) == "a"
