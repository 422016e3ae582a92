"""The embedded world: sprites, scenes, captions, held-out combinations."""

import numpy as np
import pytest

from hfi.errors import InvalidInputError
from hfi.evaluate.protocol import hash_prompts
from hfi.mini.sprites import load_sheet
from hfi.mini.suite import (
    concept_prompts,
    other_prompts,
    other_style_prompts,
    pair_prompts,
    single_prompts,
    style_prompts,
)
from hfi.mini.vocabulary import GROUPS, STYLES, all_objects, group_of, words_for
from hfi.mini.world import (
    WORLDS,
    Scene,
    World,
    caption,
    is_held_out,
    place,
    random_scene,
    render,
    vocabulary_words,
    with_article,
)

CPU = WORLDS["cpu"]


def test_world_has_84_objects_and_the_cpu_world_44_of_them():
    assert len(all_objects()) == len(set(all_objects())) == 84
    assert len(CPU.objects) == 44 and set(CPU.objects) <= set(all_objects())
    assert CPU.in_group("weapon") == GROUPS["weapon"] and len(GROUPS["weapon"]) == 8


@pytest.mark.parametrize("style", STYLES)
def test_every_sprite_is_drawn(style):
    sheet = load_sheet(style)
    assert sheet.shape == (84, 64, 64, 4)
    assert (sheet[..., 3].reshape(84, -1).mean(axis=1) > 0.05).all(), "an empty sprite"
    assert (sheet[..., :3] <= sheet[..., 3:] + 1e-6).all(), "colours are premultiplied"


def test_render_puts_the_object_on_its_background():
    scene = Scene(("bomb",), "icon", "pink", ((32, 32),), (44,))
    picture = render(scene)
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [255, 168, 200]
    assert picture[34, 28].max() < 60, "the middle of a bomb icon is black"


def test_two_objects_stand_in_the_order_of_the_caption():
    rng = np.random.default_rng(0)
    scene = (
        place(("sun", "bomb"), "icon", "white", rng)
        if "sun" in CPU.objects
        else place(("cat-face", "bomb"), "icon", "white", rng)
    )
    assert scene.centers[0][0] < 32 < scene.centers[1][0]
    text = caption(scene, rng, is_complete=True)
    first, second = (max(text.find(word) for word in words_for(name)) for name in scene.objects)
    assert 0 <= first < second


def test_training_scenes_never_use_held_out_combinations():
    rng = np.random.default_rng(1)
    assert not any(random_scene(CPU, rng).is_held_out for _ in range(300))
    assert all(random_scene(CPU, rng, held_out=True).is_held_out for _ in range(50))


def test_held_out_does_not_depend_on_the_order_of_the_objects():
    assert is_held_out(("fox", "bomb"), "flat", "blue") == is_held_out(("bomb", "fox"), "flat", "blue")


def test_complete_captions_name_everything_and_others_sometimes_only_the_group():
    rng = np.random.default_rng(2)
    scenes = [random_scene(CPU, rng, two_share=0.0) for _ in range(200)]
    for scene in scenes:
        text = caption(scene, rng, is_complete=True)
        assert scene.background in text and any(word in text for word in words_for(scene.objects[0]))
    group_only = [caption(s, rng, group_share=1.0) for s in scenes if group_of(s.objects[0]) == "weapon"]
    assert group_only and all("weapon" in text for text in group_only)


def test_every_caption_word_is_in_the_vocabulary():
    rng, words = np.random.default_rng(3), set(vocabulary_words())
    for world in WORLDS.values():
        for _ in range(300):
            assert set(caption(random_scene(world, rng), rng).replace(",", "").split()) <= words


@pytest.mark.parametrize(("words", "text"), [("axe", "an axe"), ("bomb", "a bomb"), ("icon fox", "an icon fox")])
def test_with_article(words, text):
    assert with_article(words) == text


def test_suites_separate_learning_from_measuring():
    learning = concept_prompts(CPU, "weapon", 64, first_seed=0, held_out=False)
    measuring = concept_prompts(CPU, "weapon", 64, first_seed=1_000_000, held_out=True)

    def combination(p):
        return (*sorted(p.objects), p.style, p.background)

    assert not {combination(p) for p in learning} & {combination(p) for p in measuring}
    assert not {p.seed for p in learning} & {p.seed for p in measuring}
    assert {name for p in measuring for name in p.objects} >= set(CPU.in_group("weapon"))


def test_other_prompts_name_nothing_of_the_group():
    weapons = set(CPU.in_group("weapon"))
    prompts = other_prompts(CPU, "weapon", 80, first_seed=0, held_out=True)
    assert not any(weapons & set(p.objects) for p in prompts)
    assert {len(p.objects) for p in prompts} == {1, 2}


def test_prompts_are_the_same_for_any_length_of_the_suite():
    long = concept_prompts(CPU, "weapon", 20, first_seed=5, held_out=True)
    assert concept_prompts(CPU, "weapon", 8, first_seed=5, held_out=True) == long[:8]


def test_single_and_pair_prompts():
    assert {len(p.objects) for p in single_prompts(CPU, 50, first_seed=0)} == {1}
    assert {len(p.objects) for p in pair_prompts(CPU, 20, first_seed=0)} == {2}


def test_prompts_of_groups_are_what_they_always_were():
    made = [
        *concept_prompts(CPU, "weapon", 50, first_seed=1_000_000, held_out=True),
        *concept_prompts(CPU, "weapon", 50, first_seed=0, held_out=False),
        *other_prompts(CPU, "weapon", 50, first_seed=1_000_000, held_out=True),
        *single_prompts(CPU, 50, first_seed=0),
        *pair_prompts(CPU, 50, first_seed=0),
    ]
    assert hash_prompts(made) == "775c6d0ab3246669f831e3a80db1d2d643b31068eb9b874b59a248b9db49ed12"


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
@pytest.mark.parametrize("held_out", [True, False])
def test_prompts_of_a_style_keep_learning_and_measuring_apart(world, held_out):
    for style in world.styles:
        asked = style_prompts(world, style, 60, first_seed=0, held_out=held_out)
        others = other_style_prompts(world, style, 60, first_seed=0, held_out=held_out)
        assert {p.style for p in asked} == {style} and {p.style for p in others} == set(world.styles) - {style}
        for prompt in (*asked, *others):
            assert is_held_out(prompt.objects, prompt.style, prompt.background) == held_out
            assert len(set(prompt.objects)) == len(prompt.objects) <= 2
        assert {len(p.objects) for p in asked} == {len(p.objects) for p in others} == {1, 2}
        assert [p.seed for p in asked] == list(range(60))


def test_objects_take_turns_in_a_style_but_those_without_a_combination():
    for held_out in (True, False):
        asked = style_prompts(CPU, "icon", 100, first_seed=0, held_out=held_out)
        has_one = [n for n in CPU.objects if any(is_held_out((n,), "icon", b) == held_out for b in CPU.backgrounds)]
        assert (len(has_one) == len(CPU.objects)) is not held_out, "nothing in icon style is held out of some objects"
        assert [p.objects[0] for p in asked] == [has_one[i % len(has_one)] for i in range(100)]


def test_prompts_of_a_style_are_the_same_for_any_length_and_differ_from_those_of_a_group():
    for make in (style_prompts, other_style_prompts):
        long = make(CPU, "flat", 20, first_seed=5, held_out=True)
        assert make(CPU, "flat", 8, first_seed=5, held_out=True) == long[:8]
        assert all(len(p.objects) == 1 for p in make(CPU, "flat", 20, first_seed=5, held_out=True, pair_share=0.0))
        assert all(len(p.objects) == 2 for p in make(CPU, "flat", 20, first_seed=5, held_out=True, pair_share=1.0))


def test_a_style_that_the_world_lacks_is_told_with_those_it_has():
    for make in (style_prompts, other_style_prompts):
        with pytest.raises(InvalidInputError, match=r"no style 'glossy' in this .*: use flat, icon, cartoon"):
            make(CPU, "glossy", 1, first_seed=0, held_out=True)
    alone = World(CPU.objects, ("flat",))
    with pytest.raises(InvalidInputError, match="has no prompts in the styles"):
        other_style_prompts(alone, "flat", 1, first_seed=0, held_out=True)
