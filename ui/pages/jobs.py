"""Jobs: everything that was started, how it stands, and what can be done about it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import gradio as gr

from hfi.job_requests import JOB_KINDS
from hfi.jobs.queue import ACTIVE, STATES, Job, JobState
from hfi.jobs.worker_files import live_workers
from hfi.progress import format_seconds
from storage.errors import InvalidInputError
from ui.pages.frame import (
    RESEARCHER,
    Said,
    Shell,
    Visit,
    build_header,
    build_html,
    build_notice,
    build_title,
    fill,
    format_count,
    on_load,
    project_choices,
)
from ui.pages.jobs_frame import JobWatch, find_job

ANY = ""
LIVE = "waiting or running"
PAGE_SIZE = 50
LIST_LIMIT = 1000
REFRESH_SECONDS = 2.0


def build_jobs(shell: Shell) -> None:
    """The page for those who start things, or wonder what the machine is at."""
    build_header(shell, "jobs")
    with gr.Column(elem_id="main"):
        build_title("Jobs", "Everything that was started, newest first, and what the machine is at.")
        watch = JobWatch(shell)
        with gr.Row(equal_height=True):
            states = ["any", LIVE, *dict.fromkeys(STATES.values())]
            state = gr.Dropdown(states, value="any", label="State", filterable=False, min_width=140)
            kind = gr.Dropdown(["any", *JOB_KINDS], value="any", label="Kind", filterable=False, min_width=140)
            project = gr.Dropdown(["any"], value="any", label="Project", allow_custom_value=True, min_width=140)
        with gr.Row(elem_classes="pager"):
            back = gr.Button("Back", size="sm", min_width=60, scale=0)
            counted = build_html("", "counted")
            page = gr.Number(1, label="Page", container=False, minimum=1, min_width=70, scale=0)
            forth = gr.Button("Next", size="sm", min_width=60, scale=0)
        notice = build_notice()
        board = build_html(fill("waiting.html"), "board-place")
        timer = gr.Timer(REFRESH_SECONDS, active=False)
    filters, outputs = [state, kind, project], [board, counted, page, timer]
    for item in filters:
        shell.on(item.change, show_first_page, RESEARCHER, filters, outputs, notice, trigger_mode="always_last")
    shell.on(page.submit, show_jobs, RESEARCHER, [page, *filters], outputs, notice)
    shell.on(timer.tick, refresh_jobs, RESEARCHER, [page, *filters], outputs, notice)
    shell.on(back.click, show_page_before, RESEARCHER, [page, *filters], outputs, notice)
    shell.on(forth.click, show_page_after, RESEARCHER, [page, *filters], outputs, notice)

    def show_job(visit: Visit, choice: str) -> tuple[Any, ...]:
        return tuple(watch.values(visit, visit.queue.get_job(choice.partition("|")[0])))

    def open_jobs(visit: Visit) -> Any:
        names, _ = project_choices(visit)
        asked = visit.query.get("job", "")
        job = find_job(visit, asked)
        values = (gr.update(choices=["any", *names]), *show_jobs(visit, 1), *watch.values(visit, job))
        if asked and job is None:
            return Said(values, f"There is no job {asked[:80]!r}. Choose one from the list below.", "plain")
        return values

    watch.connect()
    shell.on_select(board, show_job, RESEARCHER, outputs=watch.outputs)
    on_load(shell, open_jobs, RESEARCHER, [project, *outputs, *watch.outputs], watch.notice)


def show_first_page(visit: Visit, *filters: str) -> tuple[Any, ...]:
    """The first page of what the filters find."""
    return show_jobs(visit, 1, *filters)


def show_page_before(visit: Visit, page: float, *filters: str) -> tuple[Any, ...]:
    """The page before."""
    return show_jobs(visit, max((page or 1) - 1, 1), *filters)


def show_page_after(visit: Visit, page: float, *filters: str) -> tuple[Any, ...]:
    """The page after."""
    return show_jobs(visit, (page or 1) + 1, *filters)


def refresh_jobs(visit: Visit, page: float, *filters: str) -> tuple[Any, ...]:
    """The same page again, some seconds later."""
    return show_jobs(visit, page, *filters)


def show_jobs(
    visit: Visit, page: float | None = 1, state: str = "any", kind: str = "any", project: str = "any"
) -> tuple[str, str, int, Any]:
    """One page of the jobs that are found, how many there are, its number; asked again while any of them lives."""
    found = [
        job
        for job in visit.queue.list_jobs(states=_states(state), limit=LIST_LIMIT)
        if kind in (job.kind, "any", ANY) and project in (job.project, "any", ANY)
    ]
    n_pages = max(1, -(-len(found) // PAGE_SIZE))
    number = min(max(int(page or 1), 1), n_pages)
    shown = found[(number - 1) * PAGE_SIZE : number * PAGE_SIZE]
    lives = any(job.state in ACTIVE for job in found)
    has_no_worker = lives and not live_workers(visit.store.path)
    board = fill("jobs.html", rows=[describe_job(job) for job in shown], has_no_worker=has_no_worker)
    many = f"more than {format_count(LIST_LIMIT)}" if len(found) >= LIST_LIMIT else format_count(len(found))
    counted = fill("jobs_counted.html", first=(number - 1) * PAGE_SIZE + 1, n_shown=len(shown), many=many)
    return board, counted, number, gr.update(active=lives)


def _states(state: str) -> tuple[JobState, ...]:
    if state in ("any", ANY):
        return ()
    if state == LIVE:
        return ACTIVE
    if state not in STATES.values():
        raise InvalidInputError(
            f"The state {state!r} is none. Choose {LIVE}, {', '.join(dict.fromkeys(STATES.values()))}."
        )
    return (cast(JobState, state),)


def describe_job(job: Job) -> dict[str, Any]:
    """What a line of the list says."""
    ended = job.finished_at or datetime.now(UTC).timestamp()
    progress = job.progress
    part = f"{progress.step:,}/{progress.of:,}" if progress and progress.of else ""
    return {
        "id": job.id,
        "kind": job.kind,
        "project": job.project,
        "state": job.state,
        "user": job.user,
        "said": part or job.summary or job.error,
        "asked": f"{datetime.fromtimestamp(job.created_at, tz=UTC):%Y-%m-%d %H:%M}",
        "took": format_seconds(max(ended - job.started_at, 0)) if job.started_at else "",
    }
