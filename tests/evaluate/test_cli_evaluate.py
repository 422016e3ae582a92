"""Commands of measuring as a person meets them: wrong input is one sentence, and nothing is written."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from hfi.cli import main
from hfi.config import EraseConfig
from hfi.errors import ConfigError
from hfi.evaluate.protocol import write_result
from storage import Store
from tests.evaluate.test_compare import RESULTS, build_result


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    output = capsys.readouterr()
    return code, output.out, output.err


def assert_one_sentence(error: str) -> None:
    assert error.startswith("hfi: ") and error.count("\n") == 1 and "Traceback" not in error
    assert "should not happen" not in error


def test_compare_prints_a_table_or_json_and_refuses_mixed_protocols(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, result in (*RESULTS, ("far", build_result(0.0, 1.0, first_seed=5))):
        write_result(tmp_path / name[:3], result.model_dump())
    code, out, _ = run(capsys, "compare", "sdd", "ESD=esd")
    assert code == 0 and "90.0 % [85.0, 95.0]" in out and "ESD" in out and (tmp_path / "compare/compare.html").exists()
    code, out, _ = run(capsys, "compare", "sdd", "--json")
    assert [row["name"] for row in json.loads(out)["rows"]] == ["original", "sdd"]
    code, out, error = run(capsys, "compare", "sdd", "far", "--out", "mixed")
    assert (code, out) == (2, "") and "--allow-different-protocols" in error
    assert_one_sentence(error)
    assert not (tmp_path / "mixed").exists()
    code, out, _ = run(capsys, "compare", "sdd", "far", "--out", "mixed", "--allow-different-protocols")
    assert code == 0 and "must not be compared" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["evaluate", "--protocol", "nonsense"], 2, "There is no protocol 'nonsense': give mini-weapons"),
        (["evaluate", "--detector", "magic"], 2, "--detector"),
        (["i2p", "--prompts", "wrong.csv"], 1, "lacks the column sd_seed or evaluation_seed"),
        (["i2p", "--prompts", "missing.csv"], 1, "no file missing.csv"),
        (["q16-convert", "prompts.p", "clip"], 1, "which an array does not need"),
        (["judge-again"], 1, "run `hfi evaluate` first"),
        (["verdict"], 1, "run `hfi judge-again` first"),
        (["verdict", "--detectors", "magic"], 2, "magic"),
        (["attack"], 1, "run `hfi erase` first"),
        (["compare", "nowhere"], 1, "neither a result file nor a run"),
        (["results", "--methods", "magic"], 2, "--methods has magic, but must be of sdd"),
        (["results", "--methods", "sdd*0"], 2, "--methods has sdd*0, but behind * must be a whole number"),
        (["results", "--methods", "sdd:text*many"], 2, "--methods has sdd:text*many, but behind *"),
        (["results", "--targets", "all"], 2, "--targets has all, but must be of tokens"),
        (["results", "--seeds", "0,0"], 2, "--seeds is '0,0', but must be different whole numbers"),
        (["results", "--sld-level", "huge"], 2, "--sld-level is 'huge'"),
        (["results", "--recipe", "quick"], 2, "--recipe"),
        (["mini", "generate", "--concept", "bananas"], 2, "no concept 'bananas': use weapon"),
        (["mini", "generate", "--first-seed", "1000000"], 2, "--first-seed"),
        (["curve", "--kinds", "all"], 2, "--kinds has all, but must be of order"),
        (["curve", "--noise", "0.7"], 2, "--noise is '0.7', but must be numbers from 0 to below 0.5"),
        (["curve", "--kinds", "order"], 1, "run `hfi score` first"),
    ],
)
def test_wrong_input_is_one_clear_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.csv").write_text("prompt,categories\na,hate\n")
    (tmp_path / "prompts.p").write_bytes(pickle.dumps(Path("x")))
    with Store.open(tmp_path / "hfi-store") as store:
        store.create_project("default")
    found, out, error = run(capsys, *arguments)
    assert (found, out) == (code, "") and message in error
    assert_one_sentence(error)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], ("ignore", "swap", 6, 200)),
        (["--recipe", "thorough"], ("by_score", "swap", 12, 600)),
        (["--recipe", "thorough", "--anchor", "rest", "--num-train-steps", "7"], ("by_score", "rest", 12, 7)),
    ],
)
def test_results_takes_the_settings_of_a_recipe(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    wanted: tuple[str, str, int, int],
) -> None:
    given: list[EraseConfig] = []

    def remember(*_: object, erase: EraseConfig, **__: object) -> None:
        given.append(erase)
        raise ConfigError("enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hfi.jobs.results_table.run_results", remember)
    Store.open(tmp_path / "hfi-store").close()
    run(capsys, "results", *options)
    assert [(one.unjudged, one.anchor, one.batch_size, one.num_train_steps) for one in given] == [wanted]
