"""What is left of a prompt without the concept's words, and what takes their place."""

from __future__ import annotations

from hfi.erase import anchors


def test_without_concept_takes_out_placeholders_and_words() -> None:
    assert anchors.without_concept("an Axe and a cat", {"bomb", "axe"}) == "an and a cat"
    assert anchors.without_concept("a <concept>, red bomb", {"bomb", "axe"}, ["<concept>"]) == "a , red"


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
