"""Named suites: a group of objects or a style of the embedded world, what their pictures must show, their words."""

from __future__ import annotations

from typing import Any

import pytest

from hfi.cli_evaluate import _words_of_group
from hfi.config import AttackConfig, EvaluateConfig
from hfi.errors import PromptFileError
from hfi.evaluate.detectors import Reading
from hfi.evaluate.protocol import NAMED_PROTOCOLS, DetectorSpec, hash_prompts
from hfi.evaluate.suites import EvaluationPrompt, Suite, load_suite
from hfi.jobs import attack as attack_job
from hfi.jobs.damage import _drawn_rates, _prompt_for
from hfi.jobs.evaluate import JudgedPicture, judged
from hfi.mini.concepts import concept_of_suite, named_suites, style_of, words_of_concept
from hfi.mini.vocabulary import STYLE_WORDS
from hfi.mini.world import WORLDS
from hfi.progress import NullProgress

CPU = WORLDS["cpu"]
CARTOON_AXE = EvaluationPrompt("a drawn axe, pink background", 1, ("axe", "cartoon"))
FLAT_FOX = EvaluationPrompt("a flat fox, pink background", 1, ("fox", "flat"))


class JudgeOfCartoons:
    """Says what it is told to say."""

    spec = DetectorSpec(
        name="judge-of-styles", package="test", package_version="1", weights_sha256="0" * 64, classes=("cartoon",),
        threshold=0.5,
    )  # fmt: skip

    def read(self, images: Any) -> list[dict[str, float]]:
        raise NotImplementedError


def suite_of(name: str, **changes: Any) -> Suite:
    return load_suite(EvaluateConfig(suite=name, num_concept_images=40, num_other_images=40, **changes), CPU)


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("mini-weapons", "1bbd71dc32cca18ac2f716887841b401a264339760d3e88b3b95c6e34a5f3e76"),
        ("mini-animals", "f1c7f976aeb23bc06bd480c11603108a7e9163f2ec5a8362f4a55682db68d070"),
    ],
)
def test_the_prompts_of_a_group_are_what_they_always_were(name: str, sha256: str) -> None:
    suite = load_suite(EvaluateConfig(suite=name), CPU)
    assert hash_prompts([*suite.concept, *suite.others]) == sha256, "published numbers are about these prompts"
    assert not {"flat", "icon", "cartoon"} & {name for p in (*suite.concept, *suite.others) for name in p.objects}


@pytest.mark.parametrize("style", CPU.styles)
def test_a_suite_of_a_style_asks_for_objects_and_the_style(style: str) -> None:
    suite = suite_of(f"mini-style-{style}")
    assert suite.group == f"style-{style}" and len(suite.concept) == len(suite.others) == 40
    assert {p.objects[-1] for p in suite.concept} == {style}
    assert {p.objects[-1] for p in suite.others} == set(CPU.styles) - {style}
    for prompt in (*suite.concept, *suite.others):
        assert 1 <= len(prompt.objects[:-1]) <= 2 and set(prompt.objects[:-1]) <= set(CPU.objects)
        assert any(word in prompt.prompt for word in STYLE_WORDS[prompt.objects[-1]])
    assert [p.seed for p in suite.concept] == list(range(1_000_000, 1_000_040))


def test_an_unknown_suite_is_told_all_there_are() -> None:
    for name in ("mini-style-baroque", "mini-style-glossy", "mini-weapon"):
        with pytest.raises(PromptFileError, match=r"give mini-weapons, .*mini-things, mini-style-flat, .*JSON") as told:
            suite_of(name)
        assert repr(name) in str(told.value) and "mini-style-glossy," not in str(told.value), "this world has no glossy"


def test_the_large_protocol_shares_no_seed_with_the_others() -> None:
    large, usual = (NAMED_PROTOCOLS[name] for name in ("mini-weapons-large", "mini-weapons"))
    assert large["first_seed"] >= EvaluateConfig().first_seed + usual["num_concept_images"]
    amounts = {"num_concept_images": 200, "num_other_images": 200}
    assert {key: value for key, value in (large | amounts).items() if key != "first_seed"} == usual


def test_the_protocol_of_a_style_is_measured_like_that_of_weapons() -> None:
    assert NAMED_PROTOCOLS["mini-style-cartoon"] == NAMED_PROTOCOLS["mini-weapons"] | {"suite": "mini-style-cartoon"}


@pytest.mark.parametrize(
    ("part", "prompt", "scores", "answers"),
    [  # shows the concept, everything asked for is there, the rest is there
        ("concept", CARTOON_AXE, {"cartoon": 0.9, "flat": 0.1, "axe": 0.8}, (True, True, True)),
        ("concept", CARTOON_AXE, {"cartoon": 0.1, "flat": 0.9, "axe": 0.8}, (False, False, True)),
        ("concept", CARTOON_AXE, {"cartoon": 0.9, "flat": 0.1, "axe": 0.2}, (True, False, False)),
        ("others", FLAT_FOX, {"cartoon": 0.1, "flat": 0.9, "fox": 0.8}, (False, True, None)),
        ("others", FLAT_FOX, {"cartoon": 0.9, "flat": 0.1, "fox": 0.8}, (True, False, None)),
        ("others", FLAT_FOX, {"cartoon": 0.1, "flat": 0.9, "fox": 0.2}, (False, False, None)),
    ],
)
def test_pictures_are_judged_by_style_and_objects(
    part: str, prompt: EvaluationPrompt, scores: dict[str, float], answers: tuple[bool | None, ...]
) -> None:
    row = judged(part, prompt, "x", Reading(scores), JudgeOfCartoons())
    assert (row.shows_concept, row.is_right, row.rest_is_there) == answers


def test_concepts_have_suites_and_words_in_one_place() -> None:
    assert named_suites()["mini-weapons"] == "weapon" and named_suites()["mini-style-glossy"] == "style-glossy"
    assert "mini-style-glossy" not in named_suites(CPU)
    assert concept_of_suite("mini-style-cartoon") == "style-cartoon" and concept_of_suite("mine.json") == ""
    assert (style_of("style-cartoon"), style_of("weapon"), style_of("")) == ("cartoon", "", "")
    weapon, cartoon, unknown = (words_of_concept(name) for name in ("weapon", "style-cartoon", ""))
    assert (weapon.one, weapon.many, weapon.shown) == ("a weapon", "weapons", "a weapon")
    assert (cartoon.one, cartoon.many) == ("a picture in cartoon style", "pictures in cartoon style")
    assert cartoon.shown == "cartoon style" and unknown.one == "the concept" and unknown.many == "the flagged concept"
    assert _words_of_group("mini-weapons") == "a weapon" and _words_of_group("mini-animals") == "an animal"
    assert _words_of_group("mini-style-cartoon") == "a picture in cartoon style" and _words_of_group("my.json") == ""


@pytest.mark.parametrize(
    ("suite", "has_synonyms"),
    [("mini-weapons", True), ("mini-style-cartoon", True), ("mini-style-flat", False), ("my.json", False)],
)
def test_all_attacks_are_those_that_have_words(suite: str, has_synonyms: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attack_job, "_run_one", lambda store, config, project, progress: config.attack)
    store: Any = None
    made: list[Any] = list(attack_job.run_attack(store, AttackConfig(suite=suite), "p", NullProgress()))
    assert ("synonyms" in made) is has_synonyms and made[0] == "reinversion" and made[-1] == "latents"


def test_a_neighbour_may_be_another_style() -> None:
    suite = Suite("mini-style-cartoon", "style-cartoon", (CARTOON_AXE,), (FLAT_FOX, FLAT_FOX))
    assert _prompt_for("flat", suite) == "a picture in flat style" and _prompt_for("fox", suite) == "a fox"
    assert _prompt_for("flat", Suite("mini-weapons", "weapon", (), ())) == "a flat"
    concept = JudgedPicture("concept", "", 1, "x", True, True, None)
    right, wrong = (JudgedPicture("others", "", 1, "x", False, is_right, None) for is_right in (True, False))
    rows = {"before": [concept, right, right], "after": [concept, right, wrong]}
    for name in ("flat", "fox"):
        found = _drawn_rates(suite, rows, name, 0.95)
        assert found is not None and (found["before"]["value"], found["after"]["value"]) == (1.0, 0.5)
    assert _drawn_rates(suite, rows, "icon", 0.95) is None
