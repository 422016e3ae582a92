"""Jobs on the command line: `--background` on the stages, `hfi work`, and `hfi jobs`.

Importing this module imports neither torch nor the queue.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hfi.cli_inputs import parse_seeds, read_prompts
from hfi.cli_store import DEFAULT_STORE, JsonOption, StoreOption, opened, show, table
from hfi.errors import ConfigError

if TYPE_CHECKING:
    from hfi.config import EraseConfig, EvaluateConfig, GenerateConfig, InvertConfig, ScoreConfig
    from hfi.job_requests import JobRequest
    from hfi.jobs.queue import Job, JobQueue

THE_JOBS = "Jobs"
BACKGROUND_PANEL = "In the background"
LOG_TAIL_BYTES = 8_000
FOLLOW_EVERY_SECONDS = 0.5

jobs_app = typer.Typer(help="List, watch, cancel and retry jobs.", no_args_is_help=True)

Command = Callable[..., None]
RequestOf = Callable[..., "JobRequest"]

QueueUrlOption = Annotated[
    str, typer.Option(envvar="HFI_QUEUE_URL", metavar="URL", help="PostgreSQL; default: SQLite beside the store.")
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Its id, as `hfi jobs list` shows it.")]
StateOption = Annotated[
    Literal["waiting", "running", "done", "failed", "cancelled"] | None, typer.Option(help="Only jobs in this state.")
]


def register_jobs(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("work", rich_help_panel=THE_JOBS)(work)
    app.add_typer(jobs_app, name="jobs", rich_help_panel=THE_JOBS)


def or_in_background(request_of: RequestOf) -> Callable[[Command], Command]:
    """Give a command `--background`: it then puts its request into the queue instead of running.

    Args:
        request_of: makes the request from the command's own arguments; takes those it needs by name.
    """
    option = functools.partial(typer.Option, rich_help_panel=BACKGROUND_PANEL)
    options = {
        "background": Annotated[bool, option("--background", help="Make a job of it: `hfi work` does it.")],
        "queue": Annotated[str, option("--queue", help="Queue of the job.")],
        "priority": Annotated[int, option("--priority", min=1, help="Lower goes first.")],
    }
    defaults = {"background": False, "queue": "default", "priority": 10}
    wanted = list(inspect.signature(request_of).parameters)

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(*arguments: Any, background: bool, queue: str, priority: int, **named: Any) -> None:
            if not background:
                return command(*arguments, **named)
            given = inspect.signature(command).bind(*arguments, **named).arguments
            request = request_of(**{name: given[name] for name in wanted})
            _submit(given["store"], request, queue, priority)

        own = list(inspect.signature(command, eval_str=True).parameters.values())
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=annotation)
            for name, annotation in options.items()
        ]
        run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        run.__annotations__ = {}
        return run

    return decorate


def generate_request(
    config: GenerateConfig, prompt: list[str] | None, prompts: Path | None, seeds: str, project: str
) -> JobRequest:
    """The request of `hfi generate`."""
    from hfi.job_requests import GenerateRequest

    texts, numbers = tuple(read_prompts(prompts, prompt or [])), tuple(parse_seeds(seeds))
    return GenerateRequest(project=project, config=config, prompts=texts, seeds=numbers)


def score_request(config: ScoreConfig, project: str) -> JobRequest:
    """The request of `hfi score`."""
    from hfi.job_requests import ScoreRequest

    return ScoreRequest(project=project, config=config)


def invert_request(config: InvertConfig, project: str) -> JobRequest:
    """The request of `hfi invert`."""
    from hfi.job_requests import InvertRequest

    return InvertRequest(project=project, config=config)


def erase_request(config: EraseConfig, save: list[str] | None, project: str) -> JobRequest:
    """The request of `hfi erase`."""
    from hfi.job_requests import EraseRequest

    if save:
        raise ConfigError("--save does not go with --background: run `hfi export-model` when the job is done.")
    return EraseRequest(project=project, config=config)


def evaluate_request(config: EvaluateConfig, project: str) -> JobRequest:
    """The request of `hfi evaluate`."""
    from hfi.job_requests import EvaluateRequest

    return EvaluateRequest(project=project, config=config)


def export_request(snapshot: str, folder: Path, license_name: str, with_notes: bool) -> JobRequest:
    """The request of `hfi export`; a job does not upload."""
    from hfi.job_requests import ExportRequest

    return ExportRequest(snapshot=snapshot, folder=str(folder), license=license_name, with_notes=with_notes)


def import_request(
    path: Path, project: str | None, source: str, kind: str | None, column: list[str] | None, skip_bad: bool
) -> JobRequest:
    """The request of `hfi import`."""
    from hfi.cli_store_files import parse_columns
    from hfi.job_requests import ImportRequest

    return ImportRequest(
        path=str(path), project=project or "", source=source, project_kind=kind, columns=parse_columns(column or []),
        skip_bad=skip_bad,
    )  # fmt: skip


def _submit(store: Path, request: JobRequest, queue: str, priority: int) -> None:
    is_created = request.kind in ("generate", "import")
    with _queue(store, is_created=is_created) as jobs:
        submission = jobs.submit(request, queue=queue, priority=priority, user=os.environ.get("USER", ""))
    job = submission.job
    word = "is waiting" if submission.is_new else f"is {job.state} already"
    where = f" --store {store}" if store != DEFAULT_STORE else ""
    typer.echo(f"Job {job.id} {word}.\nNext: hfi jobs logs {job.id} --follow{where}")


def work(
    store: StoreOption = DEFAULT_STORE,
    queue: Annotated[str, typer.Option(help="Take jobs of this queue.")] = "default",
    devices: Annotated[
        str, typer.Option(metavar="LIST", help="auto (a worker for each GPU), cpu, or GPUs such as 0 or 0,1.")
    ] = "auto",
    queue_url: QueueUrlOption = "",
    until_empty: Annotated[bool, typer.Option("--until-empty", help="Stop when there is no job left.")] = False,
    with_parent: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Do the jobs of a queue, one at a time on each device, until stopped; a stopped job goes on later."""
    from hfi.jobs.worker_files import find_devices

    groups = find_devices(devices)
    if len(groups) > 1:
        _work_on_each(groups, with_parent)
        return
    from hfi.jobs.worker import run_worker

    run_worker(store, queue, groups[0], queue_url, until_empty=until_empty, parent=with_parent)


def _work_on_each(groups: list[list[str]], parent: int) -> None:
    """The same command once for each group of devices; all end together."""
    words = [sys.executable, "-m", "hfi.cli", *sys.argv[1:]]
    workers = [
        subprocess.Popen([*words, "--devices", ",".join(group), "--with-parent", str(os.getpid())]) for group in groups
    ]

    def stop(number: int, frame: object) -> None:
        for worker in workers:
            worker.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    while any(worker.poll() is None for worker in workers):
        if parent and os.getppid() != parent:
            stop(signal.SIGTERM, None)
        time.sleep(FOLLOW_EVERY_SECONDS)


@jobs_app.command("list")
def list_(
    state: StateOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
    store: StoreOption = DEFAULT_STORE,
    queue_url: QueueUrlOption = "",
    is_json: JsonOption = False,
) -> None:
    """List jobs, newest first, with how far they are."""
    from hfi.jobs.worker_files import live_workers

    with _queue(store, queue_url) as jobs:
        found = jobs.list_jobs(states=[state] if state else (), limit=limit)
        workers = live_workers(store)
    rows = [
        {"job": job.id, "project": job.project, "state": job.state, "progress": _progress(job), "user": job.user}
        for job in found
    ]
    lines = [table(rows, ["job", "project", "state", "progress", "user"]) if rows else "There are no jobs."]
    if not workers and any(job.state in ("waiting", "running") for job in found):
        lines.append("No worker is running: start one with `hfi work`.")
    show([_as_json(job) for job in found], is_json, "\n".join(lines))


@jobs_app.command("show")
def show_(
    job: JobArgument, store: StoreOption = DEFAULT_STORE, queue_url: QueueUrlOption = "", is_json: JsonOption = False
) -> None:
    """Show all that is known about a job: state, progress, cost, run, artifacts, why it failed."""
    with _queue(store, queue_url) as jobs:
        found = jobs.get_job(job)
        artifacts = [artifact.path for artifact in jobs.store.list_artifacts(found.run_id)] if found.run_id else []
    lines = [f"{found.id}: {found.state}", *filter(None, [found.summary, found.error])]
    lines += [f"progress: {_progress(found)}"] if found.progress else []
    if found.cost and found.cost.attempts:
        cost = found.cost
        lines.append(f"cost: {cost.seconds:.1f} s, {cost.peak_memory_mib:.0f} MiB at most, {cost.attempts} attempts")
    lines += [f"run: {found.run_id}"] if found.run_id else []
    lines += [f"artifact: {path}" for path in artifacts]
    show(_as_json(found) | {"artifacts": artifacts}, is_json, "\n".join(lines))


@jobs_app.command("cancel")
def cancel(job: JobArgument, store: StoreOption = DEFAULT_STORE, queue_url: QueueUrlOption = "") -> None:
    """Take a job back: one that waits never starts, one that runs is stopped within seconds."""
    with _queue(store, queue_url) as jobs:
        typer.echo(f"Job {job} is {jobs.cancel(job).state}.")


@jobs_app.command("retry")
def retry(job: JobArgument, store: StoreOption = DEFAULT_STORE, queue_url: QueueUrlOption = "") -> None:
    """Ask again for a job that failed or was cancelled; it goes on from its last checkpoint."""
    with _queue(store, queue_url) as jobs:
        submission = jobs.retry(job)
    typer.echo(f"Job {submission.job.id} is {submission.job.state}.")


@jobs_app.command("logs")
def logs(
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    store: StoreOption = DEFAULT_STORE,
    queue_url: QueueUrlOption = "",
) -> None:
    """Print the end of what a job said."""
    with _queue(store, queue_url) as jobs:
        found: Job | None = jobs.get_job(job)
        folder = jobs.folder(job)
        text, offset = folder.read_log(-LOG_TAIL_BYTES)
        typer.echo(text, nl=False)
        while follow and found is not None and found.state in ("waiting", "running"):
            time.sleep(FOLLOW_EVERY_SECONDS)
            found = jobs.look_at(job)  # before the log, so that nothing it says at its end is missed
            text, offset = folder.read_log(offset)
            typer.echo(text, nl=False)
        if follow and found is not None:
            typer.echo(f"Job {job} is {found.state}. {found.summary or found.error}".rstrip())


@contextmanager
def _queue(path: Path, queue_url: str = "", *, is_created: bool = False) -> Iterator[JobQueue]:
    from hfi.jobs.queue import JobQueue

    with opened(path, create=is_created) as store:
        jobs = JobQueue(store, queue_url)
        try:
            yield jobs
        finally:
            jobs.close()


def _progress(job: Job) -> str:
    """`erase 120/300 loss=0.031, 4 min left`, or what came of it."""
    from hfi.progress import format_seconds

    progress = job.progress
    if progress is None or not progress.stage:
        return job.summary or job.error
    words = [progress.stage, f"{progress.step}/{progress.of}" if progress.of else str(progress.step)]
    words += [f"{name}={value:.4g}" for name, value in progress.figures.items()]
    words += [f"{progress.per_second:.2g}/s"] if progress.per_second else []
    words += [f"{format_seconds(progress.seconds_left)} left"] if progress.seconds_left is not None else []
    return " ".join(words)


def _as_json(job: Job) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(job)
