"""I2P: its file as published and as copied, and both statistics against examples worked by hand."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hfi.errors import EmptyPromptListError, InvalidInputError, PromptFileError
from hfi.evaluate.i2p import (
    CATEGORIES,
    I2PPrompt,
    any_flagged,
    expected_maximum,
    measure_i2p,
    read_i2p,
    sample_cost,
    sample_prompts,
    subsets,
)

HEADER = "prompt,categories,hard,inappropriate_percentage,sd_seed,sd_guidance_scale,sd_image_width,sd_image_height"


def write_csv(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_read_i2p_reads_the_published_columns(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "i2p.csv",
        '"a fight, at night","violence, shocking",1,40.0,9007199254740993,7.5,512,512',
        "a lie,illegal activity,0,0.0,4048,12,512,768",
    )
    first, second = read_i2p(path)
    # 2^53 + 1 cannot be a float: the seed must not have gone through one
    assert first == I2PPrompt(0, "a fight, at night", ("violence", "shocking"), 9007199254740993, 7.5, True)
    assert second == I2PPrompt(1, "a lie", ("illegal activity",), 4048, 12.0, False)


def test_read_i2p_reads_the_other_spelling_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "copy.csv"
    path.write_text("\ufeffprompt,categories,evaluation_seed,evaluation_guidance\nx,hate,7.0,7\n", encoding="utf-8")
    assert read_i2p(path) == [I2PPrompt(0, "x", ("hate",), 7, 7.0, None)]


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("prompt,categories,sd_seed", "a,hate,1", "lacks the column sd_guidance_scale or evaluation_guidance"),
        ("prompt;categories;sd_seed", "a;hate;1", "lacks the column sd_seed or evaluation_seed"),
        (HEADER, "a,hate,0,0,seed,7,512,512", "line 2: sd_seed, sd_guidance_scale or a cell is no number"),
        (HEADER, "a,rudeness,0,0,1,7,512,512", "line 2: .*rudeness"),
        (HEADER, "a,,0,0,1,7,512,512", "line 2"),
        (HEADER, ",hate,0,0,1,7,512,512", "line 2"),
        (HEADER, "a,hate,0,0,-1,7,512,512", "line 2"),
        (HEADER, "a,hate", "line 2"),
    ],
)
def test_read_i2p_names_line_and_column_of_what_is_wrong(tmp_path: Path, header: str, row: str, message: str) -> None:
    with pytest.raises(PromptFileError, match=message):
        read_i2p(write_csv(tmp_path / "i2p.csv", row, header=header))


def test_read_i2p_refuses_other_encodings_empty_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes(f"{HEADER}\nfa\xe7ade,hate,0,0,1,7,512,512\n".encode("latin-1"))
    with pytest.raises(PromptFileError, match=r"not UTF-8 text \(byte \d+ is 0xe7\)"):
        read_i2p(tmp_path / "latin.csv")
    with pytest.raises(EmptyPromptListError, match="no prompt below its header"):
        read_i2p(write_csv(tmp_path / "empty.csv"))
    with pytest.raises(PromptFileError, match="no file"):
        read_i2p(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("flags", "verdict"),
    [((True, False), True), ((True, None), True), ((False, False), False), ((False, None), None), ((None, None), None)],
)
def test_any_flagged_is_either_and_never_no_where_one_could_not_read(
    flags: tuple[bool | None, ...], verdict: bool | None
) -> None:
    assert any_flagged(flags) is verdict


def test_measure_i2p_equals_a_hand_worked_example() -> None:
    # shares 2/4, 0/4, 4/4: probability 1/2; three prompts are fewer than a draw takes, so each maximum is 1
    figures = measure_i2p([[True, True, False, False], [False] * 4, [True] * 4])
    assert (figures.probability.estimate, figures.maximum, figures.maximum_sd) == (0.5, 1.0, 0.0)
    assert (figures.probability.n, figures.num_images, figures.num_unread) == (3, 12, 0)
    # means of three draws from {1/2, 0, 1} that can happen range from 0 to 1, each end with chance 1/27 > 2.5 %
    assert (figures.probability.low, figures.probability.high) == (0.0, 1.0)


def test_measure_i2p_counts_an_unread_picture_in_nothing() -> None:
    figures = measure_i2p([[True, None, None], [None] * 3, [False, False, False]])
    assert (figures.probability.estimate, figures.num_images, figures.num_unread) == (0.5, 4, 5)
    assert figures.probability.n == 2, "a prompt without any judged picture says nothing"
    with pytest.raises(InvalidInputError, match="No picture was judged"):
        measure_i2p([[None, None]])


def test_expected_maximum_equals_a_hand_worked_example() -> None:
    # 2 of {0, 1/2, 1} without replacement: {0, 1/2} -> 1/2, the other two -> 1. Mean 5/6, variance 1/4 * 2/9 = 1/18.
    mean, sd = expected_maximum([0.5, 1.0, 0.0], prompts_per_draw=2, num_draws=200_000)
    assert mean == pytest.approx(5 / 6, abs=0.003)
    assert sd == pytest.approx((1 / 18) ** 0.5, abs=0.003)


def test_expected_maximum_equals_drawing_all_subsets() -> None:
    shares = np.array([0.1, 0.3, 0.3, 0.9, 0.0, 0.6, 0.2])
    maxima = [max(subset) for subset in itertools.combinations(shares, 4)]
    mean, sd = expected_maximum(shares, prompts_per_draw=4, num_draws=200_000)
    assert mean == pytest.approx(np.mean(maxima), abs=0.003)
    assert sd == pytest.approx(np.std(maxima), abs=0.003)


def test_expected_maximum_of_10000_draws_equals_drawing_one_by_one() -> None:
    generator = np.random.default_rng(3)
    shares = generator.binomial(10, generator.beta(0.5, 2, size=400)) / 10
    drawn = [generator.choice(shares, 25, replace=False).max() for _ in range(4000)]
    mean, sd = expected_maximum(shares)
    assert mean == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 4000**0.5)
    assert sd == pytest.approx(np.std(drawn), rel=0.1)


def prompts_of(counts: dict[tuple[str, ...], int]) -> list[I2PPrompt]:
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    return [I2PPrompt(i, f"prompt {i}", kind, i, 7.5, i % 2 == 0) for i, kind in enumerate(kinds)]


def test_subsets_count_a_prompt_in_each_of_its_categories() -> None:
    sets = subsets(prompts_of({("hate", "sexual"): 2, ("sexual",): 3}))
    assert {name: len(places) for name, places in sets.items()} == {"overall": 5, "hate": 2, "sexual": 5, "hard": 3}
    assert set(sets) <= {"overall", "hard", *CATEGORIES}


def test_sample_prompts_keeps_every_kind_in_proportion() -> None:
    counts = {("hate",): 100, ("sexual", "shocking"): 300, ("violence",): 40}
    prompts = prompts_of(counts)
    chosen = sample_prompts(prompts, 88)
    assert len(chosen) == len({p.row for p in chosen}) == 88
    assert [p.row for p in chosen] == sorted(p.row for p in chosen)
    found = Counter(p.categories for p in chosen)
    assert all(abs(found[kind] - count / 5) <= 2 for kind, count in counts.items())
    assert sample_prompts(prompts, 88) == chosen and sample_prompts(prompts, 88, seed=1) != chosen
    assert sample_prompts(prompts, 0) == sample_prompts(prompts, 9999) == prompts


def test_sample_cost_is_what_a_sample_of_a_fair_coin_varies_by() -> None:
    assert sample_cost(4703, 4703) == sample_cost(4703, 0) == 0.0
    # 1.96 * sqrt(0.25 / 475 * (4703 - 475) / 4702)
    assert sample_cost(4703, 475) == pytest.approx(0.04264, abs=1e-4)
    generator = np.random.default_rng(0)
    shares = np.repeat([0.0, 1.0], 500)
    means = [generator.choice(shares, 100, replace=False).mean() for _ in range(4000)]
    assert np.mean(np.abs(np.array(means) - 0.5) <= sample_cost(1000, 100)) == pytest.approx(0.95, abs=0.02)
