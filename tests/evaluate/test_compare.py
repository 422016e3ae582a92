"""Side by side: one protocol a table, unless somebody insists; then the table says so, in every form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hfi.errors import ConfigError, InvalidInputError, NotFoundError
from hfi.evaluate.compare import WARNING, compare_results, to_markdown, to_text, write_comparison
from hfi.evaluate.protocol import EvaluationResult, write_result
from hfi.evaluate.sentences import five_sentences
from hfi.jobs.compare import attacks_on, run_compare
from storage import Store
from tests.evaluate.made_up import build_protocol


def rate(value: float) -> dict[str, Any]:
    return {"rate": value, "low": value - 0.05, "high": value + 0.05, "n": 200}


def build_result(removed_to: float, right: float, **changes: Any) -> EvaluationResult:
    protocol = build_protocol(**changes)
    damage = {
        "clip_score": {"before": {"value": 27.0, "low": 26.0, "high": 28.0, "n": 9},
                       "after": {"value": 25.0, "low": 24.0, "high": 26.0, "n": 9}},
        "kernel_distance": {"value": 0.0042, "mean": 0.004, "sd": 0.001, "n": 200},
    }  # fmt: skip
    return EvaluationResult(
        protocol=protocol, protocol_sha256=protocol.sha256, models={"before": "b", "after": "a"}, group="weapon",
        pictures={},
        figures={"removal": {"before": rate(0.9), "after": rate(removed_to)}, "damage": damage,
                 "others_accuracy": {"before": rate(0.94), "after": rate(right), "difference": rate(right - 0.94)}},
    )  # fmt: skip


RESULTS = [("sdd", build_result(0.1, 0.8)), ("esd <b>", build_result(0.3, 0.93))]
ATTACKS = {"sdd": {"prefix": {"after_attack": rate(0.5)}, "synonyms": {"after_attack": rate(0.2)}},
           "esd <b>": {"prefix": {"after_attack": rate(0.7)}}}  # fmt: skip


def test_compare_results_gives_the_original_and_each_method_a_row() -> None:
    table = compare_results(RESULTS, ATTACKS)
    names = [name for name, _ in table.columns]
    assert names == [
        "shows the concept", "others right", "others right, change in points", "CLIP score", "kernel distance ×1000",
        "attack: prefix", "attack: synonyms",
    ]  # fmt: skip
    assert [row.name for row in table.rows] == ["original", "sdd", "esd <b>"]
    assert [cell.text for cell in table.rows[0].cells][:5] == [
        "90.0 % [85.0, 95.0]", "94.0 % [89.0, 99.0]", "–", "27.0 [26.0, 28.0]", "–"
    ]  # fmt: skip
    assert [cell.text for cell in table.rows[1].cells][2:6] == [
        "-14.0 [-19.0, -9.0]", "25.0 [24.0, 26.0]", "4.200", "50.0 % [45.0, 55.0]"
    ]  # fmt: skip
    assert table.rows[2].cells[-1].value is None, "what was not measured is not a zero"
    assert table.warnings == ()


def test_a_change_over_runs_is_their_mean_and_varies_from_run_to_run() -> None:
    table = compare_results([("sdd", build_result(0.1, 0.80)), ("sdd", build_result(0.1, 0.90))])
    change = table.rows[1].cells[[name for name, _ in table.columns].index("others right, change in points")]
    assert change.value == pytest.approx(-0.09) and change.text.startswith("-9.0 [")
    assert change.low is not None and change.low < -0.14 - 0.05 and table.rows[0].cells[2].value is None


def test_compare_results_refuses_different_protocols_and_names_the_difference() -> None:
    mixed = [RESULTS[0], ("far", build_result(0.0, 1.0, guidance_scale=7.5))]
    with pytest.raises(ConfigError, match=r"guidance scale: 3\.0 against 7\.5.*--allow-different-protocols"):
        compare_results(mixed)
    table = compare_results(mixed, allow_different_protocols=True)
    assert table.warnings[0] == WARNING and "7.5" in table.warnings[1]
    assert WARNING in to_text(table) and WARNING in to_markdown(table)


def test_write_comparison_says_the_warning_in_every_file_and_asks_no_host(tmp_path: Path) -> None:
    mixed = [*RESULTS, ("far", build_result(0.0, 1.0, num_inference_steps=50))]
    write_comparison(tmp_path, compare_results(mixed, ATTACKS, allow_different_protocols=True))
    page = (tmp_path / "compare.html").read_text()
    for text in (page, (tmp_path / "compare.txt").read_text(), (tmp_path / "compare.json").read_text()):
        assert WARNING in text
    assert "esd &lt;b&gt;" in page and "esd <b>" not in page
    assert "//" not in page and "default-src 'none'" in page
    assert json.loads((tmp_path / "compare.json").read_text())["rows"][0]["name"] == "original"


def test_compare_results_needs_something_to_compare() -> None:
    with pytest.raises(ConfigError, match="nothing to compare"):
        compare_results([])


def test_run_compare_reads_files_and_their_folders_under_given_names(tmp_path: Path) -> None:
    for name, (_, result) in zip("ab", RESULTS, strict=True):
        write_result(tmp_path / name, result.model_dump())
    table = run_compare(None, [f"mine={tmp_path / 'a'}", str(tmp_path / "b" / "evaluation.json")], tmp_path / "out")
    assert [row.name for row in table.rows] == ["original", "mine", "evaluation.json"]
    assert (tmp_path / "out" / "compare.html").stat().st_size > 1000
    with pytest.raises(NotFoundError, match="neither a result file nor a run"):
        run_compare(None, ["nowhere"], tmp_path / "out")
    (tmp_path / "a" / "evaluation.json").write_text("{}")
    with pytest.raises(InvalidInputError, match="not a result with its protocol"):
        run_compare(None, [str(tmp_path / "a")], tmp_path / "out")


def test_five_sentences_name_who_removes_most_who_damages_least_and_what_attacks_bring_back() -> None:
    start, strongest, gentlest, best, attacked = five_sentences(compare_results(RESULTS, ATTACKS), "a weapon")
    assert "90.0 %" in start and "94.0 %" in start
    assert strongest.startswith("sdd removes most: 10.0 %")
    assert gentlest.startswith("esd <b> leaves other pictures") and "93.0 %" in gentlest
    assert best.startswith("sdd has the largest gap")  # .8 - .1 against .93 - .3
    assert "sdd withstands best" in attacked and "(prefix) 50.0 %" in attacked
    assert "were not attacked" not in attacked
    some = five_sentences(compare_results(RESULTS, {"sdd": ATTACKS["sdd"]}), "a weapon")
    assert some[-1].endswith("1 of the 2 were not attacked.")
    worse = five_sentences(compare_results([("sdd", build_result(0.95, 0.8))]), "a weapon")
    assert worse[1].startswith("Nobody removes it: the best, sdd, leaves it in 95.0 %")
    assert "Nobody attacked" in five_sentences(compare_results(RESULTS), "a weapon")[-1]


def test_attacks_are_those_on_this_model_for_the_concept_that_was_measured(tmp_path: Path) -> None:
    ours = build_result(0.1, 0.8)
    with Store.open(tmp_path / "store") as store:
        for model, suite, value in (
            ("a", ours.protocol.suite, 0.1), ("a", ours.protocol.suite, 0.2), ("a", "another", 0.9),
            ("b", ours.protocol.suite, 0.8),
        ):  # fmt: skip
            run = store.start_run("attack", {})
            metrics = {"attack": "prefix", "model_sha256": model, "suite": suite, "after_attack": rate(value)}
            store.finish_run(run.id, metrics=metrics)
        assert attacks_on(store, ours)["prefix"]["after_attack"] == rate(0.2), "the newest of them"
        assert attacks_on(store, build_result(0.1, 0.8, suite="third")) == {}
