"""Fields of a request on a page: a component made from each field of its model, and what is wrong with what was typed.

Labels and defaults come from the model; so do the hints, which the command line shows too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import gradio as gr
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from hfi.jobs.readiness import is_there
from hfi.model_folder import WEIGHT_SUFFIX, check_model_folder, check_weights_file
from storage.errors import HFIError, InvalidInputError

MAX_SHOWN_CHARACTERS = 60
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")


@dataclass
class Fields:
    """What was typed into a form, by the place in the request ("config.num_train_steps"), and what is wrong with it."""

    values: dict[str, Any]
    problems: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Tell a refusal within the block beside the field of that place."""
        try:
            yield
        except HFIError as error:
            self.problems[place] = str(error)


def field_of(model: type[BaseModel], place: str) -> FieldInfo:
    """The model's field at a place such as "config.num_train_steps"."""
    first, _, rest = place.partition(".")
    found = model.model_fields[first]
    if not rest:
        return found
    inner = found.annotation
    assert isinstance(inner, type) and issubclass(inner, BaseModel)
    return field_of(inner, rest)


def build_component(found: FieldInfo, label: str, **options: Any) -> gr.components.Component:
    """A component for a field, with its default and its hint."""
    settings: dict[str, Any] = {"value": found.default, "label": label, "info": found.description} | options
    kind = _plain_type(found.annotation)
    if kind is bool:
        return gr.Checkbox(**settings)
    if get_origin(kind) is Literal:
        choices: dict[str, Any] = {"choices": list(get_args(kind)), "filterable": False}
        return gr.Dropdown(**(choices | settings))
    if kind in (int, float):
        # Without a precision: 2.5 where a whole number is needed gets a message, and is not rounded unseen.
        return gr.Number(**settings)
    return gr.Textbox(**settings)


def _plain_type(annotation: Any) -> Any:
    """The type without None; text for a choice of several types."""
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    return kinds[0] if len(kinds) == 1 else str


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"config.model": x} as {"config": {"model": x}}."""
    content: dict[str, Any] = {}
    for place, value in values.items():
        *outer, last = place.split(".")
        inner = content
        for name in outer:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return content


def explain_errors(error: ValidationError, places: Sequence[str]) -> dict[str, str]:
    """A sentence for each place with a wrong value; "" holds what belongs to no field of the form."""
    found: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        place = _place_of(problem, places)
        found.setdefault(place, _sentence(problem, place))
    return found


def _place_of(problem: Mapping[str, Any], places: Sequence[str]) -> str:
    loc = [str(part) for part in problem["loc"]]
    for n_parts in range(len(loc), 0, -1):
        if ".".join(loc[:n_parts]) in places:
            return ".".join(loc[:n_parts])
    # A rule about several fields starts with the name of the one that breaks it.
    named = ".".join([*loc, re.sub(r"^Value error, ", "", problem["msg"]).partition(" ")[0]])
    return named if named in places else ""


def _sentence(problem: Mapping[str, Any], place: str) -> str:
    given, limits, kind = problem.get("input"), problem.get("ctx", {}), problem["type"]
    shown = repr(given) if isinstance(given, str) else str(given)
    shown = shown if len(shown) <= MAX_SHOWN_CHARACTERS else f"{shown[: MAX_SHOWN_CHARACTERS - 1]}…"
    rule = _RULES.get(kind)
    if given is None or (given == "" and kind in ("int_parsing", "float_parsing")):
        return "Nothing is given here. Type a value."
    if rule is not None:
        return rule(shown, limits)
    words = re.sub(r"^Value error, ", "", problem["msg"])
    if place:
        return f"{words[0].upper()}{words[1:]}."
    return f"{'.'.join(str(part) for part in problem['loc'])}: {words}."


def _whole(shown: str, limits: Mapping[str, Any]) -> str:
    return f"{shown} is not a whole number. Type one, without a point."


def _number(shown: str, limits: Mapping[str, Any]) -> str:
    return f"{shown} is not a number. Type one."


_RULES: dict[str, Callable[[str, Mapping[str, Any]], str]] = {
    "int_from_float": _whole,
    "int_parsing": _whole,
    "int_type": _whole,
    "int_parsing_size": lambda shown, limits: f"{shown} is too {'small' if shown[:1] == '-' else 'large'} to be used.",
    "float_parsing": _number,
    "float_type": _number,
    "finite_number": _number,
    "greater_than": lambda shown, limits: f"{shown} is too small. It must be more than {limits['gt']}.",
    "greater_than_equal": lambda shown, limits: f"{shown} is too small. It must be {limits['ge']} or more.",
    "less_than": lambda shown, limits: f"{shown} is too large. It must be less than {limits['lt']}.",
    "less_than_equal": lambda shown, limits: f"{shown} is too large. It must be {limits['le']} or less.",
    "literal_error": lambda shown, limits: f"{shown} is no choice here. Choose {limits['expected']}.",
    "string_too_long": lambda shown, limits: f"This is too long. At most {limits['max_length']} characters fit.",
    "string_too_short": lambda shown, limits: f"This is too short. At least {limits['min_length']} characters.",
    "too_short": lambda shown, limits: "There is nothing here. Give at least one.",
}


def check_model(name: str) -> None:
    """Whether a job could find the model of that name, as far as can be told without loading anything.

    Raises:
        InvalidInputError: it is neither the embedded one, nor on this computer, nor named like one of the Hub.
        ModelFolderError: the folder lacks a part, or the file is not whole.
    """
    if name == "mini":
        return
    if is_there(name) and Path(name).is_dir():
        check_model_folder(Path(name))
    elif is_there(name) and Path(name).suffix == WEIGHT_SUFFIX:
        check_weights_file(Path(name))
    elif is_there(name) or not HUB_ID.fullmatch(name):
        raise InvalidInputError(
            f"There is no model {name[:MAX_SHOWN_CHARACTERS]!r}. Write mini, a folder or .safetensors file on the "
            "server, or owner/name of the Hub."
        )
