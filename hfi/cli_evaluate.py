"""Commands of measuring: attack, compare, I2P, asking people again, the table of results. No torch at import time.

Each parses, calls one function and prints what came of it, for people or as JSON with ``--json``.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hfi.cli_options import takes_config
from hfi.cli_store import JsonOption, QuietOption, StoreOption, opened
from hfi.config import AttackConfig, EraseConfig, EvaluateConfig, I2PConfig, JudgeAgainConfig
from hfi.errors import ConfigError
from hfi.progress import build_progress

MEASURING = "Measuring"
DEFAULT_STORE, DEFAULT_PROJECT = Path("hfi-store"), "default"

ProjectOption = Annotated[str, typer.Option("--project", metavar="NAME", help="Project within the store.")]
RunsArgument = Annotated[
    list[str], typer.Argument(metavar="A B ...", help="Run ids or result files; NAME=... gives a row its name.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of measuring to ``app``."""
    for name, command in (
        ("attack", attack), ("compare", compare), ("i2p", i2p), ("judge-again", judge_again), ("verdict", verdict),
        ("results", results), ("q16-convert", q16_convert),
    ):  # fmt: skip
        app.command(name, rich_help_panel=MEASURING)(command)


def _show(content: Any, is_json: bool, text: str) -> None:
    typer.echo(json.dumps(content, indent=1, ensure_ascii=False, default=str) if is_json else text)


@takes_config(AttackConfig)
def attack(
    config: AttackConfig,
    store: StoreOption = DEFAULT_STORE,
    project: ProjectOption = DEFAULT_PROJECT,
    is_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Try to get the concept back out of a changed model, with stated budgets."""
    from hfi.jobs.attack import run_attack

    with opened(store) as opened_store:
        done = run_attack(opened_store, config, project, build_progress(quiet))
    _show([result.figures for result in done], is_json, "\n".join(result.summary for result in done))


def compare(
    runs: RunsArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder for the table.")] = Path("compare"),
    allow_different_protocols: Annotated[
        bool, typer.Option("--allow-different-protocols", help="Put them in one table all the same; it will say so.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    is_json: JsonOption = False,
) -> None:
    """Put evaluations side by side: a table as text, JSON and one HTML file."""
    from dataclasses import asdict

    from hfi.evaluate.compare import to_text
    from hfi.jobs.compare import run_compare

    if (store / "store.db").exists():
        with opened(store) as opened_store:
            table = run_compare(opened_store, runs, out, allow_different_protocols=allow_different_protocols)
    else:
        table = run_compare(None, runs, out, allow_different_protocols=allow_different_protocols)
    _show(asdict(table), is_json, f"{to_text(table)}\nTable: {out / 'compare.html'}")


@takes_config(I2PConfig)
def i2p(
    config: I2PConfig,
    store: StoreOption = DEFAULT_STORE,
    project: ProjectOption = DEFAULT_PROJECT,
    is_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run the I2P test bed on a model: inappropriate probability and expected maximum."""
    from hfi.jobs.generate import ensure_project
    from hfi.jobs.i2p import run_i2p

    with opened(store, create=True) as opened_store:
        ensure_project(opened_store, project)
        done = run_i2p(opened_store, config, project, build_progress(quiet))
    _show(done.figures, is_json, done.summary)


@takes_config(JudgeAgainConfig)
def judge_again(
    config: JudgeAgainConfig,
    store: StoreOption = DEFAULT_STORE,
    project: ProjectOption = DEFAULT_PROJECT,
    quiet: QuietOption = False,
) -> None:
    """Ask people, blind, which of two pictures of the same words and seed shows it more."""
    from hfi.jobs.judge_again import run_judge_again

    with opened(store) as opened_store:
        done = run_judge_again(opened_store, config, project, build_progress(quiet))
    typer.echo(f"{done.summary}\nNext: hfi verdict --store {store} --project {project}")


def verdict(
    run: Annotated[str, typer.Option("--run", metavar="RUN", help="Which asking; default: the newest.")] = "",
    detectors: Annotated[
        str, typer.Option("--detectors", metavar="NAMES", help="Detectors compared with people, by commas.")
    ] = "",
    group: Annotated[str, typer.Option(metavar="GROUP", help="judge: the embedded world's group.")] = "weapon",
    detector_path: Annotated[str, typer.Option(metavar="FOLDER", help="q16: CLIP folder with its vectors.")] = "",
    store: StoreOption = DEFAULT_STORE,
    project: ProjectOption = DEFAULT_PROJECT,
    is_json: JsonOption = False,
) -> None:
    """Say what people chose, how far they agree, and how often each detector chooses as they do."""
    from hfi.jobs.evaluate import load_named_detector
    from hfi.jobs.judge_again import describe_verdict, run_verdict

    names = [name.strip() for name in detectors.split(",") if name.strip()]
    unknown = [name for name in names if name not in ("judge", "score", "opennsfw", "q16", "nudenet")]
    if unknown:
        raise ConfigError(f"--detectors has {', '.join(unknown)}, but must be of judge, score, opennsfw, q16, nudenet.")
    with opened(store) as opened_store:
        settings = EvaluateConfig(detector_path=detector_path)
        loaded = [load_named_detector(opened_store, name, settings, project, group) for name in names]
        found = run_verdict(opened_store, project, run, loaded)
    _show(found, is_json, describe_verdict(found))


def results(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Document to write.")] = Path("docs/results.md"),
    methods: Annotated[str, typer.Option(metavar="NAMES", help="Erasers by commas; default: all there are.")] = "",
    runs: Annotated[str, typer.Option(metavar="RUNS", help="Erasures that are there already, by commas.")] = "",
    protocol: Annotated[str, typer.Option(metavar="NAME|FILE", help="How to measure.")] = "mini-weapons",
    targets: Annotated[str, typer.Option(metavar="NAME", help="What is erased: tokens, prompts or both.")] = "both",
    num_train_steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of methods that train.")] = 240,
    num_attacked: Annotated[int, typer.Option(min=0, help="Concept prompts attacked; 0 = nobody attacks.")] = 48,
    store: StoreOption = DEFAULT_STORE,
    project: ProjectOption = DEFAULT_PROJECT,
    quiet: QuietOption = False,
) -> None:
    """Erase with every method, measure and attack each, and write one table and what it says.

    Anchor, retain weight, trained weights and learning rate are those of `hfi demo`.
    """
    from hfi.cli_options import build_config
    from hfi.evaluate.compare import to_text
    from hfi.evaluate.protocol import use_protocol
    from hfi.jobs.results_table import run_results
    from hfi.recipes import demo_recipe

    settings = demo_recipe().erase.model_dump(exclude_unset=True)
    settings |= {"targets": targets, "num_train_steps": num_train_steps}
    evaluate, _ = use_protocol(build_config(EvaluateConfig, {"protocol": protocol}))
    shared = evaluate.model_dump(include={"suite", "num_inference_steps", "guidance_scale", "first_seed"})
    attacked = AttackConfig(**shared, num_images=num_attacked) if num_attacked else None
    with opened(store) as opened_store:
        table, failures = run_results(
            opened_store, project, out, build_progress(quiet), erase=build_config(EraseConfig, settings),
            evaluate=evaluate, attack=attacked, methods=_names(methods), runs=_names(runs),
            command=shlex.join(["hfi", *sys.argv[1:]]),
        )  # fmt: skip
    typer.echo("\n".join([to_text(table), *table.sentences, *(f"Not measured: {text}" for text in failures), str(out)]))


def q16_convert(
    pickle: Annotated[Path, typer.Argument(metavar="PICKLE", help="Q16's published vectors (prompts.p).")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="CLIP ViT-L/14 folder.")],
) -> None:
    """Turn Q16's pickled vectors into safetensors, without running anything that is in the pickle."""
    from hfi.evaluate.detector_q16 import convert_q16

    typer.echo(f"The vectors are in {convert_q16(pickle, folder)}.")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
