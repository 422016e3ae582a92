"""What all pages that start jobs share: a form that asks for a job, and a block in which one watches it.

    def build_erase(shell: Shell) -> None:
        build_header(shell, "erase")
        with gr.Column(elem_id="main"):
            project = build_project_choice()
            form = JobForm(shell, EraseRequest, project)
            form.add("config.method", "Method")              # made from the model's field, with its hint
            form.add("config.model", "Model", lambda: gr.Textbox("mini", label="Model"))  # or a component of one's own
            start = gr.Button("Erase", variant="primary", elem_classes="narrow")
            form.build_notice()
            watch = JobWatch(shell, ("erase",), project)
            pictures = build_html("")
            watch.follow(show_samples, [pictures])           # show_samples(visit, job or None): a value an output
            form.connect(start, watch, read_form)            # read_form(visit, fields) changes fields.values; optional
            watch.connect()                                  # last: nothing can follow afterwards
        on_load(shell, open_page, RESEARCHER, [project])     # the project's change opens the watch block

A place in a form is the field's path in the request ("config.num_train_steps"). What pydantic refuses is told under
the field; so is what `read_form` refuses within ``with fields.at(place): ...``. A place that is no field of the request
must be taken out of ``fields.values`` by `read_form`.

The block shows the job that the address names (``?job=...``; it is put there when a job starts, so that a reload finds
it again), else the newest of its kinds that waits or runs in the project. It asks once a second while that job lives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from pydantic import ValidationError

from hfi.evaluate.charts import line_chart
from hfi.job_requests import JobRequest
from hfi.jobs.job_folder import JobProgress
from hfi.jobs.queue import ACTIVE, Job, Submission
from hfi.jobs.readiness import find_problems
from hfi.jobs.worker_files import live_workers
from hfi.progress import format_seconds
from storage.errors import HFIError, NotFoundError
from ui.pages.frame import RESEARCHER, Said, Shell, Visit, build_html, build_notice, fill
from ui.pages.job_fields import Fields, build_component, explain_errors, field_of, nest

POLL_SECONDS = 1.0
LOG_TAIL_BYTES = 6000
MIN_CURVE_POINTS = 2
# The job's id goes into the page's address, and what was there of an earlier one goes.
KEEP_IN_ADDRESS = """(job, project) => {
  const address = new URL(location.href);
  if (job) address.searchParams.set("job", job);
  else address.searchParams.delete("job");
  if (project) address.searchParams.set("project", project);
  if (address.href !== location.href) history.replaceState(history.state, "", address.href);
}"""

# The switch works in the browser alone, so that pictures which arrive later are as the ones before.
UNCOVER = "(uncovers) => { document.getElementById('main').classList.toggle('uncovered', uncovers); }"

ReadForm = Callable[[Visit, Fields], None]
Follower = Callable[[Visit, Job | None], Any]


class JobWatch:
    """A block that shows how a job is doing, with its log, and buttons to cancel it and to try it again.

    Args:
        kinds: of the jobs it may show; empty: all.
        project: the choice of the page's project; when it changes, the block is opened anew. None: `values` is used.
    """

    def __init__(self, shell: Shell, kinds: Sequence[str] = (), project: gr.Dropdown | None = None) -> None:
        self.shell, self.kinds, self.project = shell, tuple(kinds), project
        self._followers: list[tuple[Follower, int]] = []
        with gr.Column(elem_classes="watch"):
            self.job_id = gr.Textbox(visible="hidden", elem_classes="watched-job")
            self.state, self.shown = build_html("", "watch-state"), build_html("", "watch-body")
            with gr.Row(elem_classes="watch-actions"):
                self.cancel = gr.Button("Cancel", visible=False, variant="stop", size="sm", elem_classes="narrow")
                self.retry = gr.Button("Try again", visible=False, size="sm", elem_classes="narrow")
            with gr.Accordion("Log", open=False, visible=False) as self.log_panel:
                self.log = build_html("", "watch-log")
            self.notice = build_notice()
            self.timer = gr.Timer(POLL_SECONDS, active=False)
        own = [self.job_id, self.state, self.shown, self.cancel, self.retry, self.log_panel, self.log, self.timer]
        self.outputs: list[Any] = own

    def follow(self, function: Follower, outputs: Sequence[Any]) -> None:
        """Call ``function(visit, job or None)`` whenever the block is shown anew, for a value an output.

        It is called once more when the job has ended, so that a page can show what came of it.
        """
        self._followers.append((function, len(outputs)))
        self.outputs = [*self.outputs, *outputs]

    def values(self, visit: Visit, job: Job | None) -> list[Any]:
        """A value for each of `outputs`."""
        is_active = job is not None and job.state in ACTIVE
        own: list[Any] = [
            job.id if job else "",
            fill("watch_state.html", job=job) if job else "",
            watch_html(visit, job) if job else "",
            gr.update(visible=is_active),
            gr.update(visible=job is not None and job.state in ("failed", "cancelled")),
            gr.update(visible=job is not None),
            fill("watch_log.html", text=_log_tail(visit, job)) if job else "",
            gr.update(active=is_active),
        ]
        for function, n_outputs in self._followers:
            found = function(visit, job)
            own += found if isinstance(found, list | tuple) else [found]
            if isinstance(found, list | tuple) and len(found) != n_outputs:
                raise TypeError(f"{function.__name__} gave {len(found)} values for {n_outputs} outputs.")
        return own

    def connect(self) -> None:
        """Tie the block to its events; to be called when everything that follows it is known."""

        def open_watch(visit: Visit, project: str) -> Any:
            job = self.find(visit, project)
            missing = self.tell_missing(visit, project, job)
            values = self.values(visit, job)
            return Said(values, missing, "plain") if missing else tuple(values)

        def watch_job(visit: Visit, job_id: str) -> tuple[Any, ...]:
            return tuple(self.values(visit, visit.queue.get_job(job_id) if job_id else None))

        def cancel_job(visit: Visit, job_id: str) -> tuple[Any, ...]:
            return tuple(self.values(visit, visit.queue.cancel(job_id)))

        def retry_job(visit: Visit, job_id: str) -> tuple[Any, ...]:
            return tuple(self.values(visit, visit.queue.retry(job_id).job))

        on, outputs, known = self.shell.on, self.outputs, [self.job_id]
        on(self.timer.tick, watch_job, RESEARCHER, known, outputs, self.notice, trigger_mode="once")
        on(self.cancel.click, cancel_job, RESEARCHER, known, outputs, self.notice, show_progress="minimal")
        on(self.retry.click, retry_job, RESEARCHER, known, outputs, self.notice, show_progress="minimal")
        places = [self.job_id, *([self.project] if self.project is not None else [])]
        self.job_id.change(None, places, None, js=KEEP_IN_ADDRESS, queue=False, api_visibility="private")
        if self.project is not None:
            on(self.project.change, open_watch, RESEARCHER, [self.project], outputs, self.notice)

    def find(self, visit: Visit, project: str) -> Job | None:
        """The job that the address names if it belongs here, else the newest that waits or runs."""
        named = find_job(visit, visit.query.get("job", ""))
        if named is not None and self._is_mine(named, project):
            return named
        found = [job for job in visit.queue.list_jobs(states=ACTIVE) if self._is_mine(job, project)]
        return visit.queue.get_job(found[0].id) if found else None

    def tell_missing(self, visit: Visit, project: str, shown: Job | None) -> str:
        """A sentence if the address names a job that is not shown; "" otherwise, and when another project was chosen.

        It is the same whether there is no such job, or it is another project's.
        """
        asked = visit.query.get("job", "")
        if not asked or (shown is not None and shown.id == asked) or visit.query.get("project", project) != project:
            return ""
        return f"The address names the job {asked[:80]!r}, which is none of this page and project. See the page Jobs."

    def _is_mine(self, job: Job, project: str) -> bool:
        return job.project == project and (not self.kinds or job.kind in self.kinds)


class JobForm:
    """Fields that make a request; what is wrong with one is told under it.

    Args:
        request_class: what the form asks for.
        project: the choice of the page's project.
    """

    def __init__(self, shell: Shell, request_class: type[JobRequest], project: gr.Dropdown) -> None:
        self.shell, self.request_class, self.project = shell, request_class, project
        self.places: dict[str, gr.components.Component] = {}
        self._messages: dict[str, gr.HTML] = {}
        self.notice: gr.HTML | None = None

    def add(self, place: str, label: str, build: Callable[[], Any] | None = None, **options: Any) -> Any:
        """A field, made from the request's model unless ``build`` makes it; gives its component.

        Args:
            place: its path in the request.
            build: called where the component shall stand.
            options: of the component that is made from the model (value, info, lines ...).
        """
        with gr.Column(min_width=options.pop("min_width", 160), elem_classes="job-field"):
            made = build() if build else build_component(field_of(self.request_class, place), label, **options)
            self._messages[place] = build_html("", "field-message")
        self.places[place] = made
        return made

    def build_notice(self) -> None:
        """The place for what came of it, under the button."""
        self.notice = build_notice()

    def connect(self, button: gr.Button, watch: JobWatch, read_form: ReadForm | None = None) -> None:
        """Start the job when the button is pressed, and show it in the block."""

        def start_job(visit: Visit, project: str, *values: Any) -> Said:
            typed = Fields(dict(zip(self.places, values, strict=True)))
            return self._start(visit, project, typed, watch, read_form)

        inputs = [self.project, *self.places.values()]
        outputs = [*self._messages.values(), *watch.outputs]
        self.shell.on(button.click, start_job, RESEARCHER, inputs, outputs, self.notice, show_progress="minimal")

    def _start(self, visit: Visit, project: str, fields: Fields, watch: JobWatch, read_form: ReadForm | None) -> Said:
        try:
            visit.store.get_project(project or "")
            request = read_request(self.request_class, project, visit, fields, read_form, list(self.places))
            submission = self._submit(visit, request, fields) if request else None
        except HFIError as error:
            fields.problems.setdefault("", str(error))
            submission = None
        messages = [field_message(fields.problems.get(place, "")) for place in self.places]
        if submission is None:
            unchanged = [gr.skip() for _ in watch.outputs]
            return Said([*messages, *unchanged], tell_refusal(fields.problems), "bad")
        job = submission.job
        who = "You have" if job.user == visit.user.name else "Somebody has"
        sentence = "Started." if submission.is_new else f"{who} started the same already: here it is."
        return Said([*messages, *watch.values(visit, job)], sentence, "good" if submission.is_new else "plain")

    def _submit(self, visit: Visit, request: JobRequest, fields: Fields) -> Submission | None:
        """The job; None, and `fields.problems`, if the store lacks what it needs."""
        with fields.at("snapshot" if "snapshot" in self.places else ""):
            request = visit.queue.prepare(request)
        if fields.problems:
            return None
        active = {job.kind for job in visit.queue.list_jobs(states=ACTIVE) if job.project == request.project}
        for place, sentence in find_problems(visit.store, request, active).items():
            fields.problems.setdefault(place if place in self.places else "", sentence)
        return None if fields.problems else visit.queue.submit(request, user=visit.user.name)


def read_request(
    request_class: type[JobRequest],
    project: str,
    visit: Visit,
    fields: Fields,
    read_form: ReadForm | None = None,
    places: Sequence[str] = (),
) -> JobRequest | None:
    """The request that was typed; None, and `fields.problems`, if something is wrong with it."""
    places = places or list(fields.values)
    if read_form is not None:
        read_form(visit, fields)
    known = {place: value for place, value in fields.values.items() if place not in fields.problems}
    try:
        request = request_class.model_validate(nest(known) | {"project": project})
    except ValidationError as error:
        fields.problems = explain_errors(error, places) | fields.problems
        return None
    return None if fields.problems else request


def field_message(sentence: str) -> str:
    """What stands under a field: what is wrong with it, or nothing."""
    return fill("field_message.html", sentence=sentence) if sentence else ""


def tell_refusal(problems: dict[str, str], what: str = "Nothing was started") -> str:
    """The sentence under the button: how many fields are marked, and what belongs to none of them."""
    n_fields = sum(place != "" for place in problems)
    marked = "the field that is marked" if n_fields == 1 else f"the {n_fields} fields that are marked"
    words = [f"{what}: look at {marked}."] if n_fields else []
    return " ".join([*words, *([problems[""]] if "" in problems else [])])


def find_job(visit: Visit, job_id: str) -> Job | None:
    """The job of that id, whole; None if there is none."""
    if not job_id:
        return None
    try:
        return visit.queue.get_job(job_id)
    except NotFoundError:
        return None


def build_uncovers() -> gr.Checkbox:
    """The switch that uncovers the pictures of a sensitive project, on this page until it is left; hidden at first."""
    switch = gr.Checkbox(label="Uncover the pictures", visible=False, min_width=180, elem_classes="uncovers")
    switch.change(None, switch, None, js=UNCOVER, queue=False, api_visibility="private")
    return switch


# --- how a job looks ---------------------------------------------------------------------------------------------


def watch_html(visit: Visit, job: Job) -> str:
    """How far a job is, its curves, what came of it and what it cost."""
    progress = job.progress
    is_active = job.state in ACTIVE
    is_counted = is_active and progress is not None and bool(progress.of)
    part = 100 * progress.step / progress.of if progress and progress.of else 0.0
    waits_alone = job.state == "waiting" and not live_workers(visit.store.path)
    return fill(
        "watch.html",
        job=job,
        progress=progress if is_active else None,
        is_counted=is_counted,
        part=min(part, 100.0),
        left=_time_left(progress),
        waits_alone=waits_alone,
        curves=curves_of(progress),
        seconds=format_seconds(job.cost.seconds) if job.cost and job.cost.attempts else "",
    )


def _time_left(progress: JobProgress | None) -> str:
    return format_seconds(progress.seconds_left) if progress and progress.seconds_left is not None else ""


def curves_of(progress: JobProgress | None) -> list[dict[str, Any]]:
    """A small chart for each figure that a job tells with its steps, such as its loss."""
    points = progress.curve if progress else []
    names = dict.fromkeys(name for _, figures in points for name in figures)
    curves = []
    for name in names:
        steps = [step for step, figures in points if name in figures]
        values = [figures[name] for _, figures in points if name in figures]
        if len(steps) >= MIN_CURVE_POINTS:
            ends = {"first": steps[0], "last": steps[-1], "newest": values[-1], "top": max(values)}
            curves.append({"name": name.replace("_", " "), "chart": line_chart(steps, values), **ends})
    return curves


def _log_tail(visit: Visit, job: Job) -> str:
    text, _ = visit.queue.folder(job.id).read_log(-LOG_TAIL_BYTES)
    lines = text.splitlines()
    return "\n".join(lines[1:] if len(text.encode()) >= LOG_TAIL_BYTES else lines)
