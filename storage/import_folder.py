"""A folder of pictures, with what is known about them in ``metadata.jsonl`` (the `imagefolder` convention).

Each line of metadata.jsonl is an object with ``file_name`` and any of ``prompt`` (or ``text``), ``seed``,
``negative_prompt``, ``model_id``, ``scheduler``, ``num_inference_steps``, ``guidance_scale``, and an answer:
``answer`` (a word of the project's kind), ``harmful`` (true/false), ``categories``, ``score``, ``annotator``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storage.errors import InvalidInputError
from storage.importers import ImportRow
from storage.records import GenerationParams, canonical_json, sha256_text

METADATA = "metadata.jsonl"
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
_NUMBERS = {"seed": int, "num_inference_steps": int, "guidance_scale": float}
_TEXTS = ("negative_prompt", "model_id", "model_sha256", "scheduler", "guard", "role")


def read_folder(folder: Path) -> Iterator[ImportRow]:
    """The pictures of a folder in the order of their names, with their metadata.

    Raises:
        InvalidInputError: metadata.jsonl has a line that is not as described, or names a missing file.
    """
    metadata = _read_metadata(folder)
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if _is_picture(path)}
    for name in metadata:
        if name not in paths:
            raise InvalidInputError(f"{METADATA} names {name!r}, which is not in {str(folder)!r}. Mend the line.")
    for name, path in paths.items():
        line = metadata.get(name, {})
        prompt = str(line.get("prompt", line.get("text", "")) or "")
        key = canonical_json(["folder", name, sha256_text(canonical_json(line))])
        yield ImportRow(
            where=name,
            key=key,
            images=(path.read_bytes(),),
            prompt=prompt,
            annotator=str(line.get("annotator", "") or ""),
            answer=answer_of(line, name),
            categories=tuple(line.get("categories") or ()),
            score=line.get("score"),
            generation=(generation_of(line, prompt, name),),
        )


def _is_picture(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.name != METADATA


def _read_metadata(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / METADATA
    if not path.exists():
        return {}
    found: dict[str, dict[str, Any]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{str(path)!r} can't be read as UTF-8 text ({error}). Save it as UTF-8.") from None
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            name = line["file_name"]
        except (ValueError, KeyError, TypeError):
            raise InvalidInputError(
                f"{str(path)!r} line {number} is not a JSON object with `file_name`: {text[:60]!r}. Mend the line."
            ) from None
        found[str(name)] = line
    return found


def answer_of(line: dict[str, Any], where: str) -> str:
    """The answer a row of named values gives: ``answer``, or ``harmful`` / ``acceptable`` as yes and no; "" = none."""
    if line.get("answer") not in (None, ""):
        return str(line["answer"])
    if line.get("score") is not None:
        return "scored"
    for name, words in (("harmful", ("no", "yes")), ("acceptable", ("yes", "no"))):
        value = line.get(name)
        if value is None:
            continue
        if value not in (True, False, 0, 1):
            raise InvalidInputError(f"{where}: {name} is {value!r}; it must be true or false. Mend the row.")
        return words[int(value)]
    return ""


def generation_of(line: dict[str, Any], prompt: str, where: str) -> GenerationParams | None:
    """How the picture was made, if at least prompt and seed are known."""
    if line.get("seed") is None or not prompt:
        return None
    settings: dict[str, Any] = {name: str(line[name]) for name in _TEXTS if line.get(name)}
    for name, kind in _NUMBERS.items():
        if line.get(name) is None:
            continue
        try:
            settings[name] = kind(line[name])
        except (TypeError, ValueError):
            raise InvalidInputError(f"{where}: {name} is {line[name]!r}; it must be a number. Mend the row.") from None
    return GenerationParams(prompt, **settings)
