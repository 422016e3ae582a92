"""The command line `hfi`: each command parses, calls one function, prints what came of it and names the next command.

Importing this module never imports torch; a command that needs it loads it when it runs.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import hfi
from hfi import cli_evaluate, cli_jobs, cli_models, cli_store, cli_ui
from hfi.cli_errors import EXIT_STOPPED, STOPPED, explain_error
from hfi.cli_inputs import parse_seeds, read_prompts
from hfi.cli_options import takes_config
from hfi.config import EraseConfig, EvaluateConfig, GenerateConfig, InvertConfig, ScoreConfig, SimulateConfig
from hfi.jobs.sharing import is_first_process
from hfi.progress import build_progress

if TYPE_CHECKING:
    from storage import Store

THE_DEMO, THE_LOOP, THE_STORE, THE_MODEL = "Start here", "The loop, in order", "The store", "The embedded model"

app = typer.Typer(
    name="hfi",
    help="Turn people's judgments on generated pictures into a changed text-to-image model.",
    epilog="Every command goes on where an interrupted run left off. A model is a folder, a Hub id, or 'mini'.",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
mini_app = typer.Typer(help="Draw and train the model that ships with this package.", no_args_is_help=True)

StoreOption = Annotated[
    Path, typer.Option("--store", envvar="HFI_STORE", metavar="FOLDER", help="Folder of images, judgments and runs.")
]
ProjectOption = Annotated[str, typer.Option("--project", metavar="NAME", help="Project within the store.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder for what the command writes.")]

DEFAULT_STORE, DEFAULT_PROJECT = Path("hfi-store"), "default"


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
    is_ephemeral_allowed: Annotated[
        bool, typer.Option("--allow-ephemeral", help="Let a store lie on a disk that forgets, such as memory.")
    ] = False,
) -> None:
    """Turn people's judgments on generated pictures into a changed text-to-image model."""
    if is_ephemeral_allowed:
        os.environ["HFI_ALLOW_EPHEMERAL"] = "1"
    if version:
        typer.echo(f"hfi {hfi.__version__}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(rich_help_panel=THE_DEMO)
def demo(
    out: OutOption = Path("demo"),
    concept: Annotated[
        str, typer.Option(metavar="NAME", help="What people object to: weapon, another group, or style-cartoon.")
    ] = "weapon",
    quiet: QuietOption = False,
) -> None:
    """The whole loop on the embedded model in minutes, without a GPU: a report and its numbers."""
    from hfi.jobs.demo import run_demo
    from hfi.recipes import demo_recipe

    result = run_demo(out, build_progress(quiet), demo_recipe(concept))
    _conclude(result.summary, "hfi --help")


@app.command(rich_help_panel=THE_LOOP)
@takes_config(GenerateConfig)
@cli_jobs.or_in_background(cli_jobs.generate_request)
def generate(
    config: GenerateConfig,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", metavar="TEXT", help="A prompt; repeatable.")] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", metavar="FILE", help="Text file, one prompt a line, UTF-8.")
    ] = None,
    seeds: Annotated[str, typer.Option("--seeds", metavar="RANGES", help="Seeds of every prompt: 0-9 or 3,5,8.")] = "0",
    store: StoreOption = DEFAULT_STORE,
    project: ProjectOption = DEFAULT_PROJECT,
    quiet: QuietOption = False,
) -> None:
    """Make pictures, every prompt with every seed, and store how each was made."""
    prompt_list, seed_list = read_prompts(prompts, prompt or []), parse_seeds(seeds)
    from hfi.jobs import stages

    with _opened(store, is_created=True) as opened:
        result = stages.run_generate(opened, config, prompt_list, seed_list, project, build_progress(quiet))
    _conclude(result.summary, _next("simulate-annotators", store, project))


@app.command("simulate-annotators", rich_help_panel=THE_LOOP)
@takes_config(SimulateConfig)
def simulate_annotators(
    config: SimulateConfig,
    store: StoreOption = DEFAULT_STORE,
    project: ProjectOption = DEFAULT_PROJECT,
    quiet: QuietOption = False,
) -> None:
    """Let simulated people judge the pictures, with stated error rates; always marked as simulated."""
    from hfi.jobs import stages

    with _opened(store) as opened:
        result = stages.run_simulate(opened, config, project, build_progress(quiet))
    _conclude(result.summary, _next("score", store, project))


@app.command(rich_help_panel=THE_LOOP)
@takes_config(ScoreConfig)
@cli_jobs.or_in_background(cli_jobs.score_request)
def score(
    config: ScoreConfig,
    store: StoreOption = DEFAULT_STORE,
    project: ProjectOption = DEFAULT_PROJECT,
    quiet: QuietOption = False,
) -> None:
    """Freeze the judgments and learn from them how strongly a picture shows the concept."""
    from hfi.jobs import stages

    with _opened(store) as opened:
        result = stages.run_score(opened, config, project, build_progress(quiet))
    _conclude(result.summary, _next("invert", store, project))


@app.command(rich_help_panel=THE_LOOP)
@takes_config(InvertConfig)
@cli_jobs.or_in_background(cli_jobs.invert_request)
def invert(
    config: InvertConfig,
    store: StoreOption = DEFAULT_STORE,
    project: ProjectOption = DEFAULT_PROJECT,
    quiet: QuietOption = False,
) -> None:
    """Learn concept tokens: new words that stand for what people flagged."""
    from hfi.jobs import stages

    with _opened(store) as opened:
        result = stages.run_invert(opened, config, project, build_progress(quiet))
    _conclude(result.summary, _next("erase", store, project))


@app.command(rich_help_panel=THE_LOOP)
@takes_config(EraseConfig)
@cli_jobs.or_in_background(cli_jobs.erase_request)
def erase(
    config: EraseConfig,
    save: Annotated[
        list[str] | None,
        typer.Option(
            "--save", metavar="FORMAT", help="Also save it as folder, single-file, delta or lora; repeatable."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what time and memory it will take, by a few timed steps.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    project: ProjectOption = DEFAULT_PROJECT,
    quiet: QuietOption = False,
) -> None:
    """Take the concept out of the model's weights; the original is never overwritten."""
    saves = cli_models.parse_formats(save or [], config.device)
    from hfi.jobs import stages

    with _opened(store) as opened:
        if dry_run:
            return _conclude(stages.estimate_erase(opened, config, project))
        result = stages.run_erase(opened, config, project, build_progress(quiet))
        for wanted in saves if is_first_process() else ():
            typer.echo(stages.run_export_model(opened, wanted, result.run.id, None, project, build_progress(quiet)))
    _conclude(result.summary, _next("evaluate", store, project))


@app.command(rich_help_panel=THE_LOOP)
@takes_config(EvaluateConfig)
@cli_jobs.or_in_background(cli_jobs.evaluate_request)
def evaluate(
    config: EvaluateConfig,
    store: StoreOption = DEFAULT_STORE,
    project: ProjectOption = DEFAULT_PROJECT,
    quiet: QuietOption = False,
) -> None:
    """Measure on held-out prompts and seeds what is gone and what was damaged, with intervals."""
    from hfi.jobs import stages

    with _opened(store) as opened:
        result = stages.run_evaluate(opened, config, project, build_progress(quiet))
    _conclude(result.summary, _next("report", store, project))


@app.command(rich_help_panel=THE_LOOP)
def report(
    out: OutOption = Path("report"),
    store: StoreOption = DEFAULT_STORE,
    project: ProjectOption = DEFAULT_PROJECT,
    quiet: QuietOption = False,
) -> None:
    """Write all of the above into one HTML file that needs no other file."""
    from hfi.jobs import stages

    with _opened(store) as opened:
        result = stages.run_report(opened, out, project, build_progress(quiet))
    _conclude(result.summary)


@mini_app.command("train")
def mini_train(
    recipe: Annotated[Literal["cpu", "gpu"], typer.Option(help="44 objects on 2 cores, or 84 on a GPU.")] = "cpu",
    out: OutOption = Path("build/mini"),
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="auto = a GPU if there is one.")] = "auto",
    precision: Annotated[
        Literal["float32", "bfloat16"] | None, typer.Option(help="Arithmetic; default: the recipe's.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Train the embedded model from its sprites: hours on 2 cores; interrupted, it goes on."""
    from hfi.mini import train

    folder = train.train(recipe, out, build_progress(quiet), device, precision)
    _conclude(f"The model is in {folder}.", f"hfi mini sheet --model {folder}")


@mini_app.command("sprites")
def mini_sprites(
    packages: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder with the unpacked icon packages.")],
) -> None:
    """Draw the sprites again from their icon packages; the drawn ones are part of this package."""
    from hfi.mini.sprites import render_all

    paths = render_all(packages)
    _conclude(f"{len(paths)} sheets of sprites in {paths[0].parent}.", "hfi mini train")


@mini_app.command("sheet")
def mini_sheet(
    model: Annotated[str, typer.Option(metavar="MODEL", help="Model folder; mini = the embedded one.")] = "mini",
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Picture to write.")] = Path("sheet.png"),
    quiet: QuietOption = False,
) -> None:
    """Draw a contact sheet of what a model makes of the embedded world's objects and styles."""
    from hfi.jobs.sheet import write_contact_sheet

    _conclude(f"Contact sheet in {write_contact_sheet(model, out, build_progress(quiet))}.")


@mini_app.command("generate")
@takes_config(GenerateConfig)
def mini_generate(
    config: GenerateConfig,
    concept: Annotated[
        str, typer.Option(metavar="NAME", help="What the first of them ask for: weapon, style-cartoon, ...")
    ] = "weapon",
    num_concept: Annotated[int, typer.Option(min=1, max=100_000, help="Prompts that ask for it.")] = 144,
    num_others: Annotated[int, typer.Option(min=1, max=100_000, help="Prompts that do not.")] = 280,
    first_seed: Annotated[
        int, typer.Option(min=0, max=800_000, help="Seed of the first; protocols measure from 1,000,000 on.")
    ] = 200_000,
    pair_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the prompts that ask for two objects.")
    ] = 0.25,
    store: StoreOption = DEFAULT_STORE,
    project: ProjectOption = DEFAULT_PROJECT,
    quiet: QuietOption = False,
) -> None:
    """Make more pictures to judge or learn from, of prompts that no protocol measures with.

    The demo's are drawn with --sampler dpm-solver++ --num-inference-steps 8. `hfi demo` on
    the same store would let its simulated people judge them too.
    """
    from hfi.jobs.demo import feedback_prompts
    from hfi.jobs.generate import generate_pairs

    pairs = feedback_prompts(concept, num_concept, num_others, first_seed=first_seed, pair_share=pair_share)
    with _opened(store, is_created=True) as opened:
        result = generate_pairs(opened, config, pairs, project, build_progress(quiet))
    _conclude(result.summary, _next("score", store, project))


@mini_app.command("measure")
def mini_measure(
    model: Annotated[str, typer.Option(metavar="MODEL", help="Model folder; mini = the embedded one.")] = "mini",
    num_single: Annotated[int, typer.Option(min=1, help="Pictures of prompts with one object.")] = 440,
    num_pair: Annotated[int, typer.Option(min=1, help="Pictures of prompts with two objects.")] = 220,
    num_scenes: Annotated[int, typer.Option(min=1, help="Rendered scenes that judge and eye are measured on.")] = 2000,
    quiet: QuietOption = False,
) -> None:
    """Measure the embedded model on held-out prompts and seeds, by the independent judge; and judge and eye."""
    from hfi.jobs.quality import measure_quality

    _conclude(measure_quality(model, num_single, num_pair, num_scenes, build_progress(quiet)))


app.add_typer(mini_app, name="mini", rich_help_panel=THE_MODEL)
cli_store.register(app)
cli_ui.register(app, THE_DEMO)
cli_models.register(app, THE_LOOP)
cli_jobs.register_jobs(app)
cli_evaluate.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What was typed after `hfi`; None takes it from the process.

    Returns:
        0 = done, 1 = failed, 2 = wrong usage, 130 = stopped by Ctrl-C. Errors are one sentence on standard error.
    """
    is_debugging = bool(os.environ.get("HFI_DEBUG"))
    if not is_debugging:
        _silence_third_parties()
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="hfi", standalone_mode=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if is_debugging and not isinstance(error, typer.TyperException):
            raise
        return _print_error(error)
    if code == EXIT_STOPPED:  # Typer turns Ctrl-C into this code before we see it.
        print(f"\nhfi: {STOPPED}", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _print_error(error: BaseException) -> int:
    sentence, code = explain_error(error)
    if isinstance(error, BrokenPipeError):
        # Nobody reads any more; without this, Python complains once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if sentence:
        print(f"hfi: {sentence}", file=sys.stderr)
    return code


def _silence_third_parties() -> None:
    """Libraries talk to developers here; the person at the prompt can do nothing about it."""
    warnings.simplefilter("ignore")
    for variable in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY", "DATASETS_VERBOSITY"):
        os.environ.setdefault(variable, "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@contextmanager
def _opened(folder: Path, *, is_created: bool = False) -> Iterator[Store]:
    from storage import Store

    store = Store.open(folder, create=is_created)
    try:
        yield store
    finally:
        store.close()


def _next(command: str, store: Path, project: str) -> str:
    """The next command, with the options that lead to the same store and project."""
    words = ["hfi", command]
    words += ["--store", str(store)] if store != DEFAULT_STORE else []
    words += ["--project", project] if project != DEFAULT_PROJECT else []
    return " ".join(f"'{word}'" if " " in word else word for word in words)


def _conclude(summary: str, next_command: str = "") -> None:
    if not is_first_process():  # of several processes of a launch the first one tells
        return
    typer.echo(summary)
    if next_command:
        typer.echo(f"Next: {next_command}")


if __name__ == "__main__":
    sys.exit(main())
