"""One picture that shows what a change did: the same words and seeds, the original model above the changed one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from hfi.errors import InvalidInputError
from hfi.evaluate.report_content import ImageSource, PicturePair, spread

PAPER, INK, LINE, BEFORE, AFTER = "#fbfaf7", "#1d1c1a", "#e3dfd6", "#b45309", "#0f766e"
GAP_PX, MARGIN_PX, HEADING_PX, SIDE_LABEL_PX = 6, 16, 34, 76


def write_before_after(
    path: Path, rows: Sequence[tuple[str, Sequence[PicturePair]]], columns: int = 8, side_px: int = 96
) -> Path:
    """Draw a block for each (heading, pairs): a line of pictures before, under it the same after.

    Args:
        path: PNG file to write; folders are made as needed.
        rows: Blocks from top to bottom, e.g. the concept and everything else.
        columns: Pairs shown of each block, at even distances: nothing is picked by its result.
        side_px: Side of each picture.

    Raises:
        InvalidInputError: A block has no pair.
    """
    for heading, pairs in rows:
        if not pairs:
            raise InvalidInputError(f"There is no pair of pictures for '{heading}': evaluate on more prompts.")
    block_px = HEADING_PX + 2 * (side_px + GAP_PX) + GAP_PX
    width = 2 * MARGIN_PX + SIDE_LABEL_PX + columns * (side_px + GAP_PX) - GAP_PX
    canvas = Image.new("RGB", (width, 2 * MARGIN_PX + len(rows) * block_px - 2 * GAP_PX), PAPER)
    draw = ImageDraw.Draw(canvas)
    for index, (heading, pairs) in enumerate(rows):
        top = MARGIN_PX + index * block_px
        draw.text((MARGIN_PX, top), heading, fill=INK, font=ImageFont.load_default(20))
        for line, (label, color) in enumerate((("before", BEFORE), ("after", AFTER))):
            y = top + HEADING_PX + line * (side_px + GAP_PX)
            draw.text((MARGIN_PX, y + side_px // 2 - 8), label, fill=color, font=ImageFont.load_default(16))
            for column, pair in enumerate(spread(pairs, columns)):
                picture = _load(getattr(pair, label).image).resize((side_px, side_px), Image.Resampling.LANCZOS)
                x = MARGIN_PX + SIDE_LABEL_PX + column * (side_px + GAP_PX)
                canvas.paste(picture, (x, y))
                draw.rectangle((x, y, x + side_px - 1, y + side_px - 1), outline=LINE)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, optimize=True)
    return path


def _load(source: ImageSource) -> Image.Image:
    if isinstance(source, Image.Image):
        return source.convert("RGB")
    with Image.open(source) as file:
        return file.convert("RGB")
