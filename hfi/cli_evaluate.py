"""Commands of measuring: attack, compare, I2P, asking people again, the table of results. No torch at import time.

Each parses, calls one function and prints what came of it, for people or as JSON with ``--json``.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hfi.cli_options import takes_config
from hfi.cli_store import JsonOption, QuietOption, StoreOption, opened
from hfi.config import AttackConfig, EraseConfig, EvaluateConfig, GenerateConfig, I2PConfig, JudgeAgainConfig
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
        ("results", results), ("curve", curve), ("q16-convert", q16_convert),
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
    group: Annotated[
        str, typer.Option(metavar="GROUP", help="judge: the embedded world's group, or style-cartoon.")
    ] = "weapon",
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
    methods: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Erasers, neg, sld, by commas; sdd:text has its own targets, abo*1 one run; default: all there are.",
        ),
    ] = "",
    runs: Annotated[str, typer.Option(metavar="RUNS", help="Erasures that are there already, by commas.")] = "",
    protocol: Annotated[str, typer.Option(metavar="NAME|FILE", help="How to measure.")] = "mini-weapons",
    targets: Annotated[
        str, typer.Option(metavar="NAMES", help="What is erased: tokens, prompts, both, text, by commas.")
    ] = "both",
    seeds: Annotated[str, typer.Option(metavar="SEEDS", help="A run of each eraser for each, e.g. 0,1,2.")] = "0",
    text: Annotated[
        str, typer.Option(metavar="WORDS", help="targets text: the concept in words; default: the suite's.")
    ] = "",
    sld_level: Annotated[
        str, typer.Option(metavar="LEVEL", help="sld: weak, weak-diffusers, medium, strong or max.")
    ] = "medium",
    recipe: Annotated[
        Literal["demo", "thorough"],
        typer.Option(help="Settings of all erasers; thorough needs scored pictures that nobody judged."),
    ] = "demo",
    anchor: Annotated[
        Literal["empty", "rest", "swap"] | None,
        typer.Option(help="What all erasers map their targets to; default: the recipe's.", show_default=False),
    ] = None,
    num_train_steps: Annotated[
        int | None, typer.Option(min=1, help="Optimizer steps of methods that train; default: the recipe's.")
    ] = None,
    num_attacked: Annotated[int, typer.Option(min=0, help="Concept prompts attacked; 0 = nobody attacks.")] = 0,
    attack: Annotated[
        str, typer.Option(metavar="NAME", help="all, reinversion, prefix, synonyms or latents.")
    ] = "reinversion",
    store: StoreOption = DEFAULT_STORE,
    project: ProjectOption = DEFAULT_PROJECT,
    quiet: QuietOption = False,
) -> None:
    """Erase with every method, measure and attack each, and write one table and what it says.

    Whatever the methods share is as in `hfi demo`, or, with --recipe thorough, takes more
    time. Started again, it goes on where it was; the document is written anew after every run.
    """
    from hfi.cli_options import build_config
    from hfi.evaluate.compare import to_text
    from hfi.evaluate.protocol import use_protocol
    from hfi.jobs.own_process import erase_in_own_process
    from hfi.jobs.results_table import ResultsPlan, all_methods, run_results
    from hfi.recipes import demo_recipe, thorough_erase

    shared_settings = thorough_erase() if recipe == "thorough" else demo_recipe().erase
    settings = shared_settings.model_dump(exclude_unset=True)
    settings |= {"num_train_steps": num_train_steps} if num_train_steps else {}
    settings |= {"anchor": anchor} if anchor else {}
    evaluate, _ = use_protocol(build_config(EvaluateConfig, {"protocol": protocol}))
    shared = evaluate.model_dump(include={"suite", "sampler", "num_inference_steps", "guidance_scale", "first_seed"})
    attacked = build_config(AttackConfig, shared | {"attack": attack, "num_images": num_attacked or 1})
    named, chosen = _names(runs), _names(methods)
    plan = ResultsPlan(
        methods=chosen or (() if named else all_methods()), targets=_names(targets),
        seeds=_whole_numbers("--seeds", seeds),
        text=text or _words_of_group(evaluate.suite),
        sld_level=build_config(GenerateConfig, {"sld_level": sld_level}).sld_level,
    )  # fmt: skip
    with opened(store) as opened_store:
        table, failures = run_results(
            opened_store, project, out, build_progress(quiet), erase=build_config(EraseConfig, settings),
            evaluate=evaluate, attack=attacked if num_attacked else None, plan=plan, runs=named,
            command=shlex.join(["hfi", *sys.argv[1:]]),
            erase_with=lambda config: erase_in_own_process(opened_store, config, project, quiet=quiet),
        )  # fmt: skip
    typer.echo("\n".join([to_text(table), *table.sentences, *(f"Not measured: {text}" for text in failures), str(out)]))


def curve(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Document to write.")] = Path("docs/curves.md"),
    kinds: Annotated[
        str, typer.Option(metavar="NAMES", help="order, noise, labels, by commas.")
    ] = "order,noise,labels",
    noise: Annotated[str, typer.Option(metavar="SHARES", help="noise: wrong answers, e.g. 0,0.2,0.4.")] = "0,0.2,0.4",
    labels: Annotated[str, typer.Option(metavar="COUNTS", help="labels: judged pictures.")] = "20,100,400",
    order_labels: Annotated[str, typer.Option(metavar="COUNTS", help="order: judged pictures.")] = "20,40,80,160,320",
    seeds: Annotated[str, typer.Option(metavar="SEEDS", help="noise, labels: a run for each.")] = "0",
    order_seeds: Annotated[str, typer.Option(metavar="SEEDS", help="order: a run for each.")] = "0,1,2,3,4",
    protocol: Annotated[str, typer.Option(metavar="NAME|FILE", help="How to measure.")] = "mini-weapons-quick",
    num_train_steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of each erasure.")] = 120,
    store: StoreOption = DEFAULT_STORE,
    project: ProjectOption = DEFAULT_PROJECT,
    quiet: QuietOption = False,
) -> None:
    """Measure how much feedback it takes: by order of judging, by wrong answers, by number of labels.

    The erasures are `sdd` of cross-attention by the prompts of the flagged pictures. Started again, it goes on.
    """
    from hfi.cli_options import build_config
    from hfi.evaluate.protocol import use_protocol
    from hfi.jobs.curves import CurvePlan, run_curves
    from hfi.recipes import demo_recipe

    plan = CurvePlan(
        kinds=_names(kinds), seeds=_whole_numbers("--seeds", seeds), labels=_whole_numbers("--labels", labels),
        order_seeds=_whole_numbers("--order-seeds", order_seeds),
        order_labels=_whole_numbers("--order-labels", order_labels), noise=_shares("--noise", noise),
    )  # fmt: skip
    settings = demo_recipe().erase.model_dump(exclude_unset=True) | {
        "targets": "prompts", "trainable": "cross_attention", "learning_rate": 2e-4, "num_train_steps": num_train_steps,
    }  # fmt: skip
    evaluate, _ = use_protocol(build_config(EvaluateConfig, {"protocol": protocol}))
    with opened(store) as opened_store:
        _, failures = run_curves(
            opened_store, project, out, build_progress(quiet), plan=plan, erase=build_config(EraseConfig, settings),
            evaluate=evaluate, command=shlex.join(["hfi", *sys.argv[1:]]),
        )  # fmt: skip
    plots = [str(out.parent / "images" / f"curve-{kind}.svg") for kind in plan.kinds]
    typer.echo("\n".join([*(f"Not measured: {text}" for text in failures), *plots, str(out)]))


def q16_convert(
    pickle: Annotated[Path, typer.Argument(metavar="PICKLE", help="Q16's published vectors (prompts.p).")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="CLIP ViT-L/14 folder.")],
) -> None:
    """Turn Q16's pickled vectors into safetensors, without running anything that is in the pickle."""
    from hfi.evaluate.detector_q16 import convert_q16

    typer.echo(f"The vectors are in {convert_q16(pickle, folder)}.")


def _words_of_group(suite: str) -> str:
    """`a weapon` for mini-weapons, `a picture in cartoon style` for mini-style-cartoon; "" for a suite of one's own."""
    from hfi.mini.concepts import concept_of_suite, words_of_concept

    concept = concept_of_suite(suite)
    return words_of_concept(concept).one if concept else ""


def _whole_numbers(option: str, text: str) -> list[int]:
    names = _names(text)
    if not names or not all(name.isdecimal() for name in names) or len(set(names)) < len(names):
        raise ConfigError(f"{option} is {text!r}, but must be different whole numbers by commas, e.g. 0,1,2.")
    return [int(name) for name in names]


def _shares(option: str, text: str) -> list[float]:
    try:
        values = [float(name) for name in _names(text)]
    except ValueError:
        values = []
    if not values or not all(0 <= value < 0.5 for value in values):
        raise ConfigError(f"{option} is {text!r}, but must be numbers from 0 to below 0.5 by commas, e.g. 0,0.2,0.4.")
    return values


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
