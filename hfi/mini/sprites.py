"""Render the sprite sheets from the emoji packages, and read them back.

The sheets ship with the package; rendering is needed only to make them again:

    npm install --prefix build/emoji @iconify-json/fluent-emoji @iconify-json/fluent-emoji-flat \
        @iconify-json/fluent-emoji-high-contrast @iconify-json/noto
    pip install resvg_py
    hfi mini sprites --packages build/emoji/node_modules
"""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hfi.mini.vocabulary import STYLES, all_objects

SPRITE_SIZE_PX = 64
SHEET_COLUMNS = 12
SHEETS_FOLDER = Path(__file__).parent / "sprites"
PACKAGES = {
    "glossy": "@iconify-json/fluent-emoji",
    "flat": "@iconify-json/fluent-emoji-flat",
    "icon": "@iconify-json/fluent-emoji-high-contrast",
    "cartoon": "@iconify-json/noto",
}


def icon_svg(icons: dict[str, Any], name: str, size_px: int) -> str:
    """The SVG document of one icon of an Iconify collection, aliases followed."""
    while name in icons.get("aliases", {}):
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    body = icon["body"].replace("currentColor", "#16181d")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{size_px}" '
        f'height="{size_px}" viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">{body}</svg>'
    )


def render_sheet(icons: dict[str, Any], size_px: int = SPRITE_SIZE_PX) -> Image.Image:
    """All objects of one style on one transparent sheet, 12 a row, in the order of `all_objects`."""
    import resvg_py

    names = all_objects()
    rows = -(-len(names) // SHEET_COLUMNS)
    sheet = Image.new("RGBA", (SHEET_COLUMNS * size_px, rows * size_px))
    for index, name in enumerate(names):
        png = bytes(resvg_py.svg_to_bytes(svg_string=icon_svg(icons, name, 2 * size_px)))
        sprite = Image.open(io.BytesIO(png)).convert("RGBA").resize((size_px, size_px), Image.Resampling.LANCZOS)
        sheet.paste(sprite, (index % SHEET_COLUMNS * size_px, index // SHEET_COLUMNS * size_px))
    return sheet


def render_all(packages: Path, folder: Path = SHEETS_FOLDER) -> list[Path]:
    """Render the four sheets from the installed emoji packages into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for style in STYLES:
        icons = json.loads((packages / PACKAGES[style] / "icons.json").read_text(encoding="utf-8"))
        path = folder / f"{style}.png"
        render_sheet(icons).save(path, optimize=True)
        paths.append(path)
    return paths


@cache
def load_sheet(style: str) -> np.ndarray:
    """The sprites of one style, premultiplied: float32 [object, 64, 64, 4] in 0..1."""
    with Image.open(SHEETS_FOLDER / f"{style}.png") as sheet:
        pixels = np.asarray(sheet.convert("RGBA"), dtype=np.float32) / 255.0
    size = SPRITE_SIZE_PX
    rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
    sprites = pixels.reshape(rows, size, columns, size, 4).swapaxes(1, 2).reshape(-1, size, size, 4)
    sprites = sprites[: len(all_objects())].copy()
    sprites[..., :3] *= sprites[..., 3:]
    return sprites
