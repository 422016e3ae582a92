"""Options of the command line, made from the fields of configurations: one help text and one rule per field.

    @app.command()
    @takes_config(ScoreConfig)
    def score(config: ScoreConfig, store: StoreOption = DEFAULT_STORE) -> None: ...

gives `score` an option for every field of `ScoreConfig`. Values go to pydantic as they were typed, so a rule
is stated once, in the configuration, and the same sentence explains it everywhere.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from annotated_types import Ge, Gt, Le, Lt, MaxLen
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from hfi.config import JobConfig
from hfi.errors import ConfigError

Config = TypeVar("Config", bound=JobConfig)
Command = Callable[..., None]
NUMBER_WORDS: dict[object, str] = {int: "a whole number", float: "a number"}


def takes_config(config_class: type[Config], panel: str = "Settings") -> Callable[[Command], Command]:
    """Give a command one option per field of a configuration; its first parameter receives the configuration.

    Args:
        config_class: Configuration whose fields become options.
        panel: Heading under which `--help` lists them.

    Returns:
        A decorator; the command it gives has the function's own options first and the fields' after them.

    Raises:
        ConfigError: from the command, when a value breaks its field's rule.
    """

    def decorate(command: Command) -> Command:
        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        field_names = list(config_class.model_fields)

        @functools.wraps(command)
        def run(**arguments: Any) -> None:
            given = {name: value for name in field_names if (value := arguments.pop(name)) is not None}
            command(build_config(config_class, given), **arguments)

        fields = [_option(name, config_class.model_fields[name], panel) for name in field_names]
        ordered = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *fields)]
        run.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
        run.__annotations__ = {}
        return run

    return decorate


def build_config(config_class: type[Config], values: dict[str, Any]) -> Config:
    """Make a configuration from what was typed.

    Args:
        config_class: Which configuration.
        values: Field -> value as typed; fields left out take their defaults.

    Raises:
        ConfigError: One sentence for each value that breaks its rule: option, value, rule, default.
    """
    try:
        return config_class.model_validate(values)
    except ValidationError as error:
        sentences = {}
        for problem in error.errors():
            name = str(problem["loc"][0]) if problem["loc"] else ""
            sentences[name] = _sentence(config_class, name, values.get(name), problem["msg"])
        raise ConfigError(" ".join(sentences.values())) from error


def option_name(field_name: str) -> str:
    """`num_members` -> `--num-members`."""
    return "--" + field_name.replace("_", "-")


def describe_rule(field: FieldInfo) -> str:
    """What values a field takes, in words: `a whole number from 1 to 50`, `one of tokens, prompts, both`."""
    choices, kinds = _choices(field.annotation), _kinds(field.annotation)
    words = [f"{NUMBER_WORDS[kind]}{_range_words(field)}" for kind in kinds if kind in NUMBER_WORDS]
    if choices:
        words.append(("one of " if len(choices) > 1 else "") + ", ".join(choices))
    if not words and bool in kinds:
        return "yes or no"
    longest = next((bound.max_length for bound in field.metadata if isinstance(bound, MaxLen)), None)
    return " or ".join(words) or (f"a text of at most {longest} characters" if longest else "a text")


def _sentence(config_class: type[JobConfig], name: str, value: object, message: str) -> str:
    field = config_class.model_fields.get(name)
    if field is None:
        return f"{message.removeprefix('Value error, ').rstrip('.')}."
    default = "" if field.default in (None, "") else f", {field.default}"
    return (
        f"{option_name(name)} is {value!r}, but must be {describe_rule(field)}; "
        f"leave the option out for the default{default}."
    )


def _option(name: str, field: FieldInfo, panel: str) -> inspect.Parameter:
    """One keyword parameter that Typer understands; None stands for "not given"."""
    is_switch = _kinds(field.annotation) == [bool]
    option = typer.Option(
        option_name(name) + (f"/--no-{name.replace('_', '-')}" if is_switch else ""),
        help=field.description,
        metavar=None if is_switch else _metavar(field),
        rich_help_panel=panel,
    )
    annotation = Annotated[bool | None if is_switch else str | None, option]  # type: ignore[valid-type]
    default = field.default if is_switch else str(field.default) if field.default not in (None, "") else None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _metavar(field: FieldInfo) -> str:
    """Short form of the rule for `--help`: `INT 1..50`, `FLOAT >0`, `tokens|prompts|both`."""
    kinds, choices = _kinds(field.annotation), _choices(field.annotation)
    numbers = ["INT" if kind is int else "FLOAT" for kind in kinds if kind in NUMBER_WORDS]
    parts = [f"{numbers[0]}{_range_signs(field)}"] if numbers else []
    return "|".join([*parts, *choices]) or "TEXT"


def _members(annotation: Any) -> Sequence[Any]:
    """The alternatives of a union without None; a type that is no union is its own only alternative."""
    if get_origin(annotation) in (Union, UnionType):
        return [member for member in get_args(annotation) if member is not NoneType]
    return [annotation]


def _choices(annotation: Any) -> list[str]:
    return [str(value) for m in _members(annotation) if get_origin(m) is Literal for value in get_args(m)]


def _kinds(annotation: Any) -> list[Any]:
    return [member for member in _members(annotation) if get_origin(member) is not Literal]


def _bounds(field: FieldInfo) -> dict[str, float]:
    """The field's limits by kind: ge, gt, le, lt."""
    bounds: dict[str, float] = {}
    for bound in field.metadata:
        for kind in (Ge, Gt, Le, Lt):
            if isinstance(bound, kind):
                name = kind.__name__.lower()
                bounds[name] = getattr(bound, name)
    return bounds


def _range_words(field: FieldInfo) -> str:
    bounds = _bounds(field)
    if "ge" in bounds and "le" in bounds:
        return f" from {_short(bounds['ge'])} to {_short(bounds['le'])}"
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    texts = [f"{words[kind]} {_short(limit)}" for kind, limit in bounds.items()]
    return f" {' and '.join(texts)}" if texts else ""


def _range_signs(field: FieldInfo) -> str:
    bounds = _bounds(field)
    if "ge" in bounds and "le" in bounds:
        return f" {_short(bounds['ge'])}..{_short(bounds['le'])}"
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return "".join(f" {signs[kind]}{_short(limit)}" for kind, limit in bounds.items())


def _short(limit: float) -> str:
    return f"{limit:,g}" if isinstance(limit, float) else str(limit)
