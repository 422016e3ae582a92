"""The set of pictures that the demo project is made from: one archive with the pictures and how each was made."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ARCHIVE = Path(__file__).parent / "demo" / "pictures.zip"
CONTENTS = "pictures.json"
EPOCH = (2026, 1, 1, 0, 0, 0)  # the archive's own times, so that the same pictures give the same bytes


@dataclass(frozen=True)
class DemoPicture:
    """One picture and where it comes from.

    Args:
        png: the file's bytes.
        prompt: the words it was made from, or that describe it.
        group: the group of its objects that the demo asks about (weapon, substance, macabre), "" = none.
        params: fields of GenerationParams besides the prompt; ``model_id`` says whether a model drew it.
        gold: for pictures of known content: answer, categories, explanation, is_training; {} = to be judged.
    """

    png: bytes
    prompt: str
    group: str
    params: dict[str, Any]
    gold: dict[str, Any] = field(default_factory=dict)


def write_pictures(pictures: Sequence[DemoPicture], note: str, path: Path = ARCHIVE) -> None:
    """Write the set; ``note`` says in words where the pictures come from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number, picture in enumerate(pictures):
            name = f"{number:03d}.png"
            archive.writestr(zipfile.ZipInfo(name, EPOCH), picture.png)
            facts = asdict(picture)
            del facts["png"]
            rows.append({"file": name, **facts})
        contents = json.dumps({"note": note, "pictures": rows}, indent=1, ensure_ascii=False, sort_keys=True)
        archive.writestr(zipfile.ZipInfo(CONTENTS, EPOCH), contents)


def read_pictures(path: Path = ARCHIVE) -> tuple[list[DemoPicture], str]:
    """The set, and where it comes from in words."""
    with zipfile.ZipFile(path) as archive:
        contents = json.loads(archive.read(CONTENTS))
        pictures = [DemoPicture(archive.read(row.pop("file")), **row) for row in contents["pictures"]]
    return pictures, str(contents["note"])
