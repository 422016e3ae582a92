"""The command line as a person meets it: what `hfi` prints, on which stream, and the exit code."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import pytest
import typer
from pydantic import Field

from hfi import cli, config
from hfi.cli import main
from hfi.cli_inputs import parse_seeds, read_prompts
from hfi.cli_options import build_config, describe_rule, option_name, takes_config
from hfi.config import JobConfig
from hfi.errors import ConfigError, EmptyPromptListError, HFIError, NotFoundError, PromptFileError

ROOT = Path(__file__).parents[1]
LOOP = {
    "generate": config.GenerateConfig,
    "simulate-annotators": config.SimulateConfig,
    "score": config.ScoreConfig,
    "invert": config.InvertConfig,
    "erase": config.EraseConfig,
    "evaluate": config.EvaluateConfig,
}
COMMANDS = [
    ["demo"],
    *([name] for name in LOOP),
    ["report"],
    ["mini"],
    *(["mini", n] for n in ("train", "sprites", "sheet", "measure")),
]


class ExampleConfig(JobConfig):
    """One field of every kind that configurations have."""

    name: str = Field("", max_length=5, description="A text.")
    count: int = Field(3, ge=1, le=9, description="A count.")
    rate: float = Field(1e-5, gt=0, lt=1, description="A rate.")
    size_px: int | None = Field(None, ge=8, description="A size.")
    mode: Literal["fast", "slow"] = Field("fast", description="A choice.")
    parts: int | Literal["auto"] = Field("auto", description="A count or auto.")
    is_careful: bool = Field(True, description="A switch.")


@pytest.fixture
def example() -> Iterator[list[ExampleConfig]]:
    """A command with the options of ExampleConfig while the test runs; the list receives what it was called with."""
    received: list[ExampleConfig] = []

    @cli.app.command("example")
    @takes_config(ExampleConfig)
    def example_command(config: ExampleConfig) -> None:
        received.append(config)

    yield received
    cli.app.registered_commands.pop()


def failing_command(error: BaseException) -> Iterator[None]:
    @cli.app.command("fail")
    def fail() -> None:
        raise error

    yield
    cli.app.registered_commands.pop()


def run_hfi(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`hfi` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "hfi.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    output = capsys.readouterr()
    assert f"Usage: hfi {' '.join(command)}" in output.out
    assert output.err == ""


@pytest.mark.parametrize("command", LOOP)
def test_every_field_is_an_option_with_its_help_text(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([command, "--help"])
    words = set(capsys.readouterr().out.replace("│", " ").split())
    for name, field in LOOP[command].model_fields.items():
        assert option_name(name) in words
        assert field.description
        assert set(field.description.split()) <= words, name


def test_help_reads_like_a_table_of_contents_in_the_order_of_the_loop(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    places = [text.index(f"│ {name} ") for name in ("demo", *LOOP, "report", "mini")]
    assert places == sorted(places)
    assert "Traceback" not in text


def test_version_is_the_package_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "hfi 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluat"], "No such command 'evaluat'. Did you mean 'evaluate'? See: hfi --help"),
        (["score", "--foo"], "No such option: --foo. See: hfi score --help"),
        (["score", "--seed"], "Option '--seed' requires an argument."),
        (["score", "surplus"], "Got unexpected extra argument(s) (surplus). See: hfi score --help"),
        (["score", "--num-members", "0"], "--num-members is '0', but must be a whole number from 1 to 50"),
        (["score", "--seed", "1.5"], "--seed is '1.5', but must be a whole number from 0 to"),
        (["erase", "--learning-rate", "inf"], "--learning-rate is 'inf', but must be a number above 0"),
        (["erase", "--targets", "all"], "--targets is 'all', but must be one of tokens, prompts, both"),
        (["invert", "--num-concepts", "some"], "--num-concepts is 'some', but must be a whole number or auto"),
        (["generate", "--prompt", "a", "--seeds", "x"], "--seeds is 'x', but must be seeds and ranges such as 0-9"),
        (["mini", "train", "--recipe", "tpu"], "Invalid value for '--recipe': 'tpu' is not one of 'cpu', 'gpu'."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"hfi: {sentence}")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["generate"], "There is no prompt: give --prompt"),
        (["generate", "--prompt", "  "], "There is no prompt: give --prompt"),
        (["generate", "--prompts", "missing.txt"], "There is no prompt file missing.txt"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_1_and_leaves_no_store(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--store", str(tmp_path / "store")]) == 1
    assert capsys.readouterr().err.startswith(f"hfi: {sentence}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (HFIError("The store is too new."), 1, "The store is too new."),
        (ConfigError("--x is wrong."), 2, "--x is wrong."),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on the disk"),
        (RuntimeError("write: No space left on device (os error 28)"), 1, "No space left on the disk"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "/x: Permission denied. Check the path"),
        (MemoryError(), 1, "Not enough memory. Use a smaller --batch-size"),
        (ZeroDivisionError("two\nlines"), 1, "This should not happen: ZeroDivisionError: two lines."),
        (KeyboardInterrupt(), 130, "Stopped. Run the same command again"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_error_is_one_sentence_and_never_a_traceback(
    error: BaseException, code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = failing_command(error)
    next(command)
    try:
        assert main(["fail"]) == code
    finally:
        next(command, None)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.strip().startswith(f"hfi: {sentence}")
    assert len(output.err.strip().splitlines()) == 1


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HFI_DEBUG", "1")
    command = failing_command(ZeroDivisionError())
    next(command)
    try:
        with pytest.raises(ZeroDivisionError):
            main(["fail"])
    finally:
        next(command, None)


def test_process_prints_errors_on_standard_error_and_sets_the_exit_code() -> None:
    run = run_hfi("score", "--num-members", "0")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("hfi: --num-members is '0'")
    assert "Traceback" not in run.stderr


def test_process_takes_a_closed_pipe_quietly() -> None:
    command = f"{sys.executable} -m hfi.cli score --help | head -c 1; exit ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.stderr == ""
    assert run.returncode in (0, 1)  # 0 when everything was written before the reader left


def test_process_stops_on_ctrl_c_with_130() -> None:
    code = """
import signal, sys, time
from hfi import cli

signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background has it ignored

@cli.app.command()
def wait():
    print("ready", flush=True)
    time.sleep(60)

sys.exit(cli.main(["wait"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 130
    assert errors.strip() == "hfi: Stopped. Run the same command again: it goes on where it was."


def test_help_needs_less_than_a_second_of_work() -> None:
    before = os.times()
    run_hfi("--help")
    after = os.times()
    used = after.children_user - before.children_user + after.children_system - before.children_system
    assert used < 1.5  # on a quiet machine 0.5; slower ones must not fail for it


def test_options_take_every_kind_of_field(example: list[ExampleConfig]) -> None:
    arguments = ["--name", "ab", "--count", "9", "--rate", "1e-3", "--size-px", "64", "--mode", "slow", "--parts", "4"]
    assert main(["example", *arguments, "--no-is-careful"]) == 0
    assert main(["example"]) == 0
    given = ExampleConfig(name="ab", count=9, rate=1e-3, size_px=64, mode="slow", parts=4, is_careful=False)
    assert example == [given, ExampleConfig()]


@pytest.mark.parametrize(
    ("field", "rule"),
    [
        ("name", "a text of at most 5 characters"),
        ("count", "a whole number from 1 to 9"),
        ("rate", "a number above 0 and below 1"),
        ("size_px", "a whole number of at least 8"),
        ("mode", "one of fast, slow"),
        ("parts", "a whole number or auto"),
        ("is_careful", "yes or no"),
    ],
)
def test_describe_rule_says_what_a_field_takes(field: str, rule: str) -> None:
    assert describe_rule(ExampleConfig.model_fields[field]) == rule


def test_build_config_names_every_wrong_option_once() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(ExampleConfig, {"count": "10", "parts": "x", "name": "ok"})
    assert str(caught.value) == (
        "--count is '10', but must be a whole number from 1 to 9; leave the option out for the default, 3. "
        "--parts is 'x', but must be a whole number or auto; leave the option out for the default, auto."
    )


@pytest.mark.parametrize("command", LOOP)
def test_defaults_of_the_options_are_those_of_the_configuration(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    group = typer.main.get_command(cli.app)
    options = {option.name: option for option in group.commands[command].params}  # type: ignore[attr-defined]
    given = {name: options[name].default for name in LOOP[command].model_fields if options[name].default is not None}
    assert build_config(LOOP[command], given) == LOOP[command]()


# What a choice asks for beside itself.
NEEDED = {"text": {"text": "a bomb"}, "concept": {"anchor_concept": "a cat"}}


@pytest.mark.parametrize("command", LOOP)
def test_every_choice_of_an_option_is_accepted(command: str) -> None:
    for name, field in LOOP[command].model_fields.items():
        for choice in get_args(field.annotation):
            if isinstance(choice, str):
                method = {"method": name.split("_")[0]} if name.startswith(("sdd_", "esd_", "robust_")) else {}
                method |= {"method": "closed_form"} if name.startswith("closed_form_") else {}
                config = build_config(LOOP[command], {name: choice} | method | NEEDED.get(choice, {}))
                assert getattr(config, name) == choice


def test_read_prompts_keeps_what_is_typed_and_skips_comments(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeff# a comment\n\n a “cat”  \r\nein Hündchen\n".encode())
    assert read_prompts(path, ["first"]) == ["first", " a “cat”  ", "ein Hündchen"]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", EmptyPromptListError, "holds no prompt"),
        (b"# only\n\n", EmptyPromptListError, "holds no prompt"),
        (b"a cat\xff\xfe", PromptFileError, r"not UTF-8 text \(byte 5 is 0xff\)"),
        (b"\x89PNG\r\n", PromptFileError, "not UTF-8"),
        (b"a\0b", PromptFileError, "NUL bytes"),
        (b"x" * 2001, PromptFileError, "Line 1 of .* has 2001 characters"),
    ],
)
def test_read_prompts_refuses_what_is_no_list_of_prompts(
    content: bytes, error: type[HFIError], message: str, tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_bytes(content)
    with pytest.raises(error, match=message):
        read_prompts(tmp_path / "prompts.txt", [])


def test_read_prompts_refuses_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PromptFileError, match="is a folder"):
        read_prompts(tmp_path, [])
    with pytest.raises(NotFoundError, match="no prompt file"):
        read_prompts(tmp_path / "no", [])


@pytest.mark.parametrize(
    ("text", "seeds"), [("0", [0]), ("0-3,7", [0, 1, 2, 3, 7]), (" 5 , 5,4-5 ", [5, 4]), (str(2**63 - 1), [2**63 - 1])]
)
def test_parse_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "0-2000000", str(2**63), "1;2", "1.5"])
def test_parse_seeds_refuses_what_is_no_range(text: str) -> None:
    with pytest.raises(ConfigError, match="--seeds"):
        parse_seeds(text)
