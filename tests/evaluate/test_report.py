"""The report is one file that stands alone, says what its records say and hides what it must."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from hfi.errors import InvalidInputError
from hfi.evaluate import charts
from hfi.evaluate.metrics import wilson_interval
from hfi.evaluate.report import (
    encode_picture,
    format_out_of_100,
    format_percent,
    judge_change,
    render_report,
    strip_markdown,
    write_report,
)
from hfi.evaluate.report_content import RateRow, ReportContent
from hfi.evaluate.results import DemoResults, RateResult, read_results, write_results
from tests.evaluate.made_up import build_content, build_results

VOID_TAGS = {"meta", "img", "input", "br", "link", "hr", "path", "rect"}


class Page(HTMLParser):
    """Collects ids, text, addresses and unbalanced tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.open_tags: list[str] = []
        self.wrong: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.addresses += [values[name] or "" for name in ("src", "href", "action", "data") if name in values]
        if tag not in VOID_TAGS:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID_TAGS:
            self.open_tags.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open_tags or self.open_tags.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open_tags or self.open_tags[-1] not in ("style", "script"):
            self.text += data


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(build_content())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_report_is_well_formed_and_has_every_section(page: Page) -> None:
    assert page.wrong == []
    assert page.open_tags == []
    expected = "reveal slider concept others labels score-model tokens contributions rates damage attacks"
    assert page.ids == [*expected.split(), "curves", "cost", "limits", "evidence"]


def test_report_asks_no_other_host(html: str, page: Page) -> None:
    assert page.addresses
    assert all(address.startswith("data:image/webp;base64,") for address in page.addresses)
    assert re.findall(r"(?:https?:)?//[a-z]", re.sub(r"base64,[^\"]*", "", html)) == []
    assert "default-src 'none'" in html
    assert "url(" not in html
    assert "@import" not in html


def test_report_says_its_numbers_in_sentences(page: Page) -> None:
    text = re.sub(r"\s+", " ", page.text)
    assert "Of 100 pictures asked to show weapons, 89 did with the original model; 6 do with the changed one." in text
    assert "83.9 % to 92.6 %" in text
    assert "puts the flagged one first in 98 of 100 cases" in text


def test_report_says_what_tokens_were_drawn_in() -> None:
    content = build_content()
    text = re.sub(r"\s+", " ", Page(render_report(content)).text)
    assert "for the word alone;" in text and "Together the 3 words stand for 78.9 %" in text
    one = replace(content.tokens[0], is_in_prompts=True, initializer="")
    text = re.sub(r"\s+", " ", Page(render_report(replace(content, tokens=(one,)))).text)
    assert "for the word in flagged pictures' own prompts" in text and "for the word alone" not in text
    assert "It stands for 78.9 %" in text and "started from the mean of all words." in text


def test_report_about_a_style_says_what_its_pictures_show() -> None:
    content = replace(build_content(), concept="pictures in cartoon style", shown="cartoon style")
    text = re.sub(r"\s+", " ", Page(render_report(content)).text)
    assert "Of 100 pictures asked to show cartoon style, 89 did" in text and "weapons" not in text
    assert "Pictures in cartoon style, before and after" in text and "Asked for pictures in cartoon style" in text
    assert "pictures that still show cartoon style" in text and "Show pictures of cartoon style without blur" in text


def test_report_says_loudly_that_annotators_are_simulated(page: Page) -> None:
    content = build_content()
    assert content.labels is not None
    text = re.sub(r"\s+", " ", page.text)
    assert "No person judged these pictures: all 1 536 judgments were made by 3 computer programs." in text
    people = tuple(replace(row, is_simulated=False) for row in content.labels.annotators)
    scorer = replace(content.score_model, without_errors=None)
    of_people = render_report(replace(content, labels=replace(content.labels, annotators=people), score_model=scorer))
    assert "imulated" not in Page(of_people).text.replace(content.limits[0], "")


def test_report_shows_prompts_as_text_and_not_as_markup(html: str, page: Page) -> None:
    assert "a bomb <b>0</b> & more" in page.text
    assert "<b>0</b>" not in html


def test_report_blurs_the_concept_only_when_sensitive(html: str) -> None:
    content = build_content()
    num_concept = 2 * len(content.concept_pairs) + sum(len(t.drawn) + len(t.flagged) for t in content.tokens) + 8
    assert html.count('veiled"') == num_concept
    assert html.count('class="picture"') == 2 * len(content.other_pairs)
    assert 'veiled"' not in render_report(build_content(is_sensitive=False))
    assert len(re.findall(r'veiled" tabindex="0"', html)) == num_concept, "each can be revealed without a mouse"
    assert ".veiled:hover" not in html, "passing over a picture must not reveal it"


def test_report_shows_damage_and_attacks_with_their_intervals_and_budgets(page: Page) -> None:
    text = re.sub(r"\s+", " ", page.text)
    assert "Neighbour: axe" in text and "92 % → 88 %" in text
    assert "learned again A new token." in text and "80 steps" in text
    assert format_percent(30 / 48) in page.text


def test_report_of_the_least_possible_content_leaves_sections_out() -> None:
    full = build_content()
    least = ReportContent("weapons", "mini", "now", full.removal, full.others)
    page = Page(render_report(least))
    assert page.ids == ["rates"]
    assert page.wrong == []


def test_every_field_of_the_content_changes_the_page() -> None:
    content = build_content(num_pairs=1)
    html = render_report(content)
    for field in fields(ReportContent):
        value = getattr(content, field.name)
        if isinstance(value, str):
            other: object = value + " otherwise"
        elif isinstance(value, bool):
            other = not value
        elif isinstance(value, tuple):
            other = value[:-1]
        elif isinstance(value, RateRow):
            other = replace(value, after=wilson_interval(77, 200))
        else:
            other = None
        assert render_report(replace(content, **{field.name: other})) != html, field.name


def test_write_report_replaces_the_file_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    assert write_report(path, build_content(num_pairs=1)) == path
    first = path.read_text(encoding="utf-8")
    content = build_content(num_pairs=1)
    broken = replace(
        content.concept_pairs[0], before=replace(content.concept_pairs[0].before, image=tmp_path / "no.png")
    )
    with pytest.raises(InvalidInputError, match=r"no\.png cannot be read"):
        write_report(path, replace(content, concept_pairs=(broken,)))
    assert path.read_text(encoding="utf-8") == first
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_encode_picture_makes_large_pictures_smaller_and_takes_paths(tmp_path: Path) -> None:
    large = Image.effect_noise((1024, 512), 60)
    large.save(tmp_path / "large.png")
    assert encode_picture(large) == encode_picture(tmp_path / "large.png")
    assert len(encode_picture(large)) < 100_000


@pytest.mark.parametrize(
    ("share", "percent", "out_of_100"),
    [
        (0.0, "0 %", "0"),
        (0.002, "0.2 %", "fewer than 1"),
        (0.915, "91.5 %", "92"),
        (0.998, "99.8 %", "more than 99"),
        (1.0, "100 %", "100"),
        (-0.015, "−1.5 %", None),
        (-0.0001, "0 %", None),
    ],
)
def test_formats(share: float, percent: str, out_of_100: str | None) -> None:
    assert format_percent(share).replace("\N{NARROW NO-BREAK SPACE}", " ") == percent
    if out_of_100 is not None:
        assert format_out_of_100(share) == out_of_100


@pytest.mark.parametrize(
    ("removed", "right", "sentence"),
    [
        (178, 187, "Nothing was shown to be removed"),
        (11, 184, "No damage to other pictures was found; a loss of more than 6.8 in 100"),
        (11, 184, "6.8 in 100 is unlikely; 1.5 in 100 fewer are right here, which may be chance."),
        (11, 189, "is unlikely."),
        (11, 120, "other pictures suffered"),
    ],
)
def test_judge_change_follows_the_intervals(removed: int, right: int, sentence: str) -> None:
    removal = RateRow("a", wilson_interval(178, 200), wilson_interval(removed, 200), "lower")
    others = RateRow("b", wilson_interval(187, 200), wilson_interval(right, 200), "higher")
    assert sentence in judge_change(removal, others)


def test_strip_markdown_keeps_the_words() -> None:
    guideline = "# Weapons\n\nDoes it show a **weapon**? Answer *yes* or _no_; keep snake_case and 2 * 3.\n"
    assert strip_markdown(guideline) == (
        "Weapons\n\nDoes it show a weapon? Answer yes or no; keep snake_case and 2 * 3."
    )


def test_line_chart_leaves_gaps_where_values_are_missing() -> None:
    chart = str(charts.line_chart([0, 1, 2, 3], [1.0, float("nan"), 0.5, 0.0]))
    raw = re.search(r'class="raw" d="([^"]*)"', chart)
    assert raw is not None
    assert raw[1] == "M0.0 6.0M266.7 73.0L400.0 140.0"


def test_roc_curve_moves_diagonally_through_ties() -> None:
    chart = str(charts.roc_curve([0.9, 0.5, 0.5, 0.1], [True, True, False, False]))
    assert 'd="M0.0 140.0L0.0 70.0L70.0 0.0L140.0 0.0"' in chart


def test_histogram_draws_each_class_on_its_side() -> None:
    chart = str(charts.histogram([0.97, 1.0, 0.01], [True, True, False]))
    assert re.findall(r'class="(\w+)" x="([\d.]+)"', chart) == [("flagged", "381.0"), ("unflagged", "1.0")]


def test_write_results_writes_exactly_the_named_keys(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, build_results())
    assert json.loads(path.read_text()) == build_results()
    assert read_results(path) == DemoResults.model_validate(build_results())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra_key": 1}, "extra_key"),
        ({"model": None}, "model"),
        ({"peak_memory_mib": float("inf")}, "peak_memory_mib"),
        ({"score_model": {"auroc": 1.2, "low": 0.9, "high": 1.0, "n": 9}}, "auroc"),
        ({"removal": {"before": {"rate": 0.5, "low": 0.6, "high": 0.7, "n": 9}}}, "outside its interval"),
    ],
)
def test_write_results_refuses_what_cannot_be(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(InvalidInputError, match=message):
        write_results(path, build_results() | change)
    assert list(tmp_path.iterdir()) == []


def test_read_results_refuses_another_file(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(InvalidInputError, match="not a file of results"):
        read_results(tmp_path / "results.json")


def test_rate_result_keeps_the_numbers_of_an_interval() -> None:
    interval = wilson_interval(0, 200)
    result = RateResult.from_interval(interval)
    assert (result.rate, result.low, result.high, result.n) == (0.0, 0.0, interval.high, 200)
