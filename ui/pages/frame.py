"""What every page is made with: who may call what, how refusals are told, how templates are filled in.

A page's function takes a `Visit` and plain values and gives plain values back. `Shell.on` ties it to an event: it asks
`Context.require` first, tells every `HFIError` beside the field it is about, and never lets a value pass through to
HTML but by a template, which escapes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import quote
from weakref import WeakKeyDictionary

import gradio as gr
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hfi.jobs.queue import Job, JobQueue
from storage import Store
from storage.errors import HFIError
from storage.records import User

TEMPLATES = Path(__file__).parents[1] / "templates" / "shell"
ANNOTATOR, REVIEWER, RESEARCHER, OWNER = ROLES = ("annotator", "reviewer", "researcher", "owner")
# (path, name, least role), in the order of the navigation.
PAGES = (
    ("", "Projects", ANNOTATOR),
    ("setup", "Set-up", RESEARCHER),
    ("gallery", "Gallery", REVIEWER),
    ("quality", "Quality", REVIEWER),
    ("export", "Export", RESEARCHER),
    ("generate", "Generate", RESEARCHER),
    ("concept", "Concept", RESEARCHER),
    ("erase", "Erase", RESEARCHER),
    ("results", "Results", RESEARCHER),
    ("judge_again", "Judge again", RESEARCHER),
    ("library", "Library", RESEARCHER),
    ("jobs", "Jobs", RESEARCHER),
    ("people", "People", OWNER),
    ("account", "Account", ANNOTATOR),
)
Tone = Literal["good", "bad", "plain"]


class Context(Protocol):
    """What the pages need of the server: the store, its settings, and who is asking."""

    store: Store
    settings: Any

    def require(self, request: Any, role: str) -> User:
        """The user who asks, if they have the role; raises HFIError if not."""
        ...


@dataclass(frozen=True)
class Visit:
    """One call of one page's function: who asks, on what, from which address.

    Args:
        query: what stands behind the question mark of the page's address.
        request: the request itself, for what only the server knows (the session's cookie).
    """

    context: Context
    user: User
    query: Mapping[str, str] = field(default_factory=dict)
    request: Any = None

    @property
    def store(self) -> Store:
        """The store of the server."""
        return self.context.store

    @property
    def queue(self) -> JobQueue:
        """The queue of jobs that take longer than a click."""
        return queue_of(self.context)

    def may(self, role: str) -> bool:
        """Whether the user has at least this role."""
        return has_role(self.user, role)


_QUEUES: WeakKeyDictionary[Any, JobQueue] = WeakKeyDictionary()


def queue_of(context: Context) -> JobQueue:
    """The context's own queue of jobs, or one that is made for it when first asked for."""
    own = getattr(context, "jobs", None)
    if isinstance(own, JobQueue):
        return own
    if context not in _QUEUES:
        _QUEUES[context] = JobQueue(context.store)
    return _QUEUES[context]


def has_role(user: User, role: str) -> bool:
    """Whether a user has at least a role."""
    return user.role in ROLES and ROLES.index(user.role) >= ROLES.index(role)


class Said:
    """A function's values, and a sentence about what came of it."""

    def __init__(self, values: Sequence[Any], sentence: str, tone: Tone = "good") -> None:
        self.values, self.sentence, self.tone = tuple(values), sentence, tone


Call = Callable[..., Any]


class Shell:
    """Ties the functions of one page to events.

    Args:
        page: name of the page's module; with the function's name it is what `ui.access` finds the least role by.
    """

    def __init__(self, context: Context, page: str) -> None:
        self.context, self.page = context, page

    def on(
        self,
        trigger: Call | Sequence[Call],
        function: Call,
        role: str,
        inputs: Sequence[gr.components.Component] = (),
        outputs: Sequence[gr.components.Component] = (),
        notice: gr.HTML | None = None,
        **options: Any,
    ) -> Any:
        """Call ``function(visit, *values of inputs)`` on an event.

        Args:
            trigger: an event (``button.click``), or several.
            function: gives a value for each of ``outputs``, a tuple if there are several; or `Said`.
            role: the least role that may call it.
            notice: where refusals and `Said` sentences are shown; default: refusals in the corner.
            options: of the event: trigger_mode, show_progress, js ...
        """
        settings: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"} | options
        outs = [*outputs, notice] if notice is not None else list(outputs)
        name = f"{self.page}_{function.__name__}"
        call = self._guarded(function, role, len(outputs), notice is not None)
        triggers = [trigger] if callable(trigger) else list(trigger)
        if len(triggers) == 1:
            return triggers[0](call, list(inputs), outs, api_name=name, **settings)
        return gr.on(triggers, call, list(inputs), outs, api_name=name, **settings)

    def _guarded(self, function: Call, role: str, n_outputs: int, has_notice: bool) -> Call:
        context = self.context

        def call(request: gr.Request, *values: Any) -> Any:
            try:
                visit = Visit(context, context.require(request, role), dict(request.query_params), request)
                found = function(visit, *values)
            except HFIError as error:
                return _refused(str(error), n_outputs, has_notice)
            return _answer(found, n_outputs, has_notice)

        call.__module__, call.__name__ = f"{__package__}.{self.page}", function.__name__
        return call

    def on_select(self, board: gr.HTML, function: Call, role: str, **rest: Any) -> Any:
        """As `on`, for a click on something in a piece of HTML that has ``data-choice``; its words come first."""
        chosen = gr.Textbox(visible="hidden", elem_classes="chosen")
        board.click(None, None, chosen, js="() => window.hfiChoice", queue=False, api_visibility="private")
        inputs = [chosen, *rest.pop("inputs", ())]
        return self.on(chosen.change, function, role, inputs, **rest)


def _answer(found: Any, n_outputs: int, has_notice: bool) -> Any:
    said = found if isinstance(found, Said) else None
    values = said.values if said else found if isinstance(found, tuple) else () if found is None else (found,)
    # Gradio takes updates apart, so each output gets one of its own.
    values = tuple(dict(value) if isinstance(value, dict) else value for value in values)
    if len(values) != n_outputs:
        raise TypeError(f"The function gave {len(values)} values for {n_outputs} outputs.")
    if has_notice:
        values = (*values, notice_html(said.sentence, said.tone) if said else "")
    return values[0] if len(values) == 1 else values


def _refused(sentence: str, n_outputs: int, has_notice: bool) -> Any:
    if not has_notice:
        # Shown in the corner, as HTML. (`gr.Warning` is shown only by functions that wait in Gradio's queue.)
        raise gr.Error(str(Markup.escape(sentence)), title="Not done", print_exception=False)
    values = [*(gr.skip() for _ in range(n_outputs)), notice_html(sentence, "bad")]
    return values[0] if len(values) == 1 else tuple(values)


# --- templates ---------------------------------------------------------------------------------------------------


def format_day(time_us: int | None) -> str:
    """A stored time as a date and a time of day in UTC; "" for none."""
    return "" if time_us is None else f"{datetime.fromtimestamp(time_us / 1e6, tz=UTC):%Y-%m-%d %H:%M}"


def format_count(number: int) -> str:
    """12345 as 12,345."""
    return f"{number:,}"


def format_share(part: float, whole: float) -> str:
    """A share in per cent; a dash of nothing."""
    return f"{100 * part / whole:.0f} %" if whole else "–"


def format_number(value: float | None, digits: int = 2) -> str:
    """A number with so many digits; a dash if there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_ENVIRONMENT.filters.update(
    day=format_day, count=format_count, number=format_number, address=lambda text: quote(str(text), safe="")
)
_ENVIRONMENT.globals["share"] = format_share


def fill(template: str, **values: Any) -> str:
    """A template of `templates/shell` filled in; everything put in is escaped."""
    return _ENVIRONMENT.get_template(template).render(**values)


def notice_html(sentence: str, tone: Tone = "plain") -> str:
    """A sentence in a box; refusals interrupt a screen reader, the others wait."""
    return fill("notice.html", sentence=sentence, tone=tone)


# --- parts of pages ----------------------------------------------------------------------------------------------


def build_html(value: str = "", *classes: str) -> gr.HTML:
    """A piece of HTML made by a template, looking as our own style sheet says and not as Gradio's."""
    return gr.HTML(value, elem_classes=["hfi", *classes], apply_default_css=False)


def build_header(shell: Shell, path: str) -> None:
    """The top of a page: its name, the way to the others, who is logged in."""
    header = build_html(_header_html(path, None), "header")

    def show_header(visit: Visit) -> str:
        return _header_html(path, visit.user)

    role = next(role for place, _, role in PAGES if place == path)
    shell.on(_load_event(), show_header, role, (), [header])


def _header_html(path: str, user: User | None) -> str:
    pages = [(place, name) for place, name, role in PAGES if user is not None and has_role(user, role)]
    return fill("header.html", pages=pages, path=path, user=user)


def _load_event() -> Call:
    blocks = gr.context.Context.root_block
    assert blocks is not None
    return blocks.load


def on_load(shell: Shell, function: Call, role: str, outputs: Sequence[Any], notice: gr.HTML | None = None) -> Any:
    """Call a function when the page is opened."""
    return shell.on(_load_event(), function, role, (), outputs, notice)


def build_title(title: str, text: str) -> None:
    """The page's heading and one sentence on what it is for."""
    build_html(fill("title.html", title=title, text=text), "title")


def build_notice() -> gr.HTML:
    """The place for what came of an action."""
    return build_html("", "notice-place")


def build_project_choice() -> gr.Dropdown:
    """The project the page is about."""
    return gr.Dropdown(
        label="Project", choices=[], interactive=True, allow_custom_value=True, elem_classes="project-choice"
    )


def job_html(job: Job) -> str:
    """How a job stands, in one box."""
    progress = job.progress
    is_counted = progress is not None and bool(progress.of)
    part = 100 * progress.step / progress.of if progress and progress.of else 0.0
    return fill("job.html", job=job, progress=progress, is_counted=is_counted, part=min(part, 100.0))


def project_choices(visit: Visit, kinds: Sequence[str] = ()) -> tuple[list[str], str]:
    """The names of all projects, and the one that the address names, else the first one."""
    names = [project.name for project in visit.store.list_projects() if not kinds or project.kind in kinds]
    asked = visit.query.get("project", "")
    return names, asked if asked in names else names[0] if names else ""
