"""The dataset card (README.md) of an export: how it was collected, how far to trust it, what it is not for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.files import write_file_atomically
from storage.records import Snapshot

if TYPE_CHECKING:
    from storage.store import Store

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_RULES = {
    "majority": "the share of annotators",
    "dawid_skene": "Dawid and Skene's model (1979), which weighs each annotator by how reliable they turn out to be",
    "bradley_terry": "the Bradley-Terry model with ties (Davidson 1970)",
    "plackett_luce": "the Plackett-Luce model",
    "mean": "the mean score",
    "mean_rank": "the mean rank",
}
_CONTENTS = {
    "judgments": "every answer that stands: who (a pseudonym), what, in which order it was shown, how long it took",
    "images": "one row a picture with its label (`label` True = acceptable) and how it was made",
    "pairs": "`prompt`, `chosen`, `rejected`, and the same under Pick-a-Pic's names; bytes in `jpg_0/1` are PNG",
    "rankings": "pictures of one prompt with their utilities and ranks",
}


def write_card(store: Store, snapshot: Snapshot, manifest: dict[str, Any], folder: Path) -> None:
    """Write README.md into an export folder."""
    text = make_card(store, snapshot, manifest)
    write_file_atomically(folder / "README.md", text.encode("utf-8"))


def make_card(store: Store, snapshot: Snapshot, manifest: dict[str, Any]) -> str:
    """The card's text: a header for the Hub, then what a reader must know."""
    import yaml  # type: ignore[import-untyped]

    project = store.get_project(snapshot.project)
    header = yaml.safe_dump(_header(project.name, project.is_sensitive, manifest), allow_unicode=True, sort_keys=False)
    sections = [
        f"---\n{header}---",
        f"# Human feedback: {_plain(project.name)}",
        *([_WARNING] if project.is_sensitive else []),
        f"Made from the frozen set of judgments `{snapshot.hash}`. A model or report that names this hash was made "
        "from exactly these judgments.",
        _collected(snapshot, project.annotators_per_item),
        _table_of_configs(manifest),
        _table_of_agreement(snapshot.agreement),
        "## Guideline\n\n"
        + "\n\n".join(f"Version {version}:\n\n{_quote(text)}" for version, text in store.list_guidelines(project.name)),
        _LIMITS,
    ]
    return "\n\n".join(sections) + "\n"


_WARNING = (
    "> **Content warning.** The pictures were collected to find content that people object to. "
    "They are not for all audiences."
)
_LIMITS = """## Limits

Annotators are named by pseudonyms made for this export alone, and times are rounded to the day. Labels say what these
annotators made of these pictures under this guideline; other people may judge otherwise. Do not use the data to
identify or rate persons, and do not train models to produce what was flagged."""


def _header(name: str, is_sensitive: bool, manifest: dict[str, Any]) -> dict[str, Any]:
    filled = [config for config, content in manifest["configs"].items() if content["rows"]]
    n_rows = max((content["rows"] for content in manifest["configs"].values()), default=0)
    size = next((label for limit, label in _SIZES if n_rows < limit), "n>1M")
    tags = ["human-feedback", "text-to-image", *(["not-for-all-audiences"] if is_sensitive else [])]
    first = "images" if "images" in filled else filled[0] if filled else ""
    return {
        "pretty_name": name,
        "license": manifest["options"]["license"],
        "task_categories": ["text-to-image"],
        "tags": tags,
        "size_categories": [size],
        "configs": [
            {
                "config_name": config,
                "data_files": [{"split": "train", "path": f"data/{config}/*.parquet"}],
                **({"default": True} if config == first else {}),
            }
            for config in filled
        ],
    }


def _collected(snapshot: Snapshot, annotators_per_item: int) -> str:
    n_people = snapshot.n_annotators - snapshot.n_simulated
    who = f"{n_people} people" if n_people != 1 else "1 person"
    if snapshot.n_simulated:
        who += f" and {snapshot.n_simulated} **simulated annotators** (programs, not people)"
    return (
        f"## How it was collected\n\n{snapshot.n_judgments} judgments of kind `{snapshot.kind}` on {snapshot.n_items} "
        f"items by {who}, each item by up to {annotators_per_item} at first and more where they disagreed, blind to "
        f"each other. Labels by `{snapshot.rule}`: {_RULES[snapshot.rule]}."
    )


def _table_of_configs(manifest: dict[str, Any]) -> str:
    rows = [
        f"| `{config}` | {content['rows']} | {_CONTENTS[config]} |"
        for config, content in manifest["configs"].items()
        if content["rows"]
    ]
    return "\n".join(["## Contents", "", "| config | rows | what |", "|---|---|---|", *rows])


def _table_of_agreement(agreement: dict[str, Any]) -> str:
    lines = ["## Agreement", "", "Krippendorff's alpha (1 = perfect, 0 = as by chance), 95 % bootstrap interval."]
    lines += ["", "| answers | alpha | from | to | units |", "|---|---|---|---|---|"]
    lines.append(_agreement_row("all", agreement))
    lines += [_agreement_row(_plain(name), row) for name, row in agreement.get("by_category", {}).items()]
    return "\n".join(lines)


def _agreement_row(name: str, row: dict[str, Any]) -> str:
    shown = ["not defined" if row.get(key) is None else f"{row[key]:.3f}" for key in ("alpha", "low", "high")]
    return f"| {name} | {' | '.join(shown)} | {row.get('n_units', 0)} |"


def _plain(text: str) -> str:
    """A name without anything that Markdown would act on."""
    return "".join(f"\\{character}" if character in "\\`*_{}[]<>()#+!|~" else character for character in text)


def _quote(text: str) -> str:
    """A text as it was typed, indented so that nothing in it is read as Markdown or HTML."""
    return "\n".join(f"    {line}" for line in text.splitlines()) or "    (empty)"
