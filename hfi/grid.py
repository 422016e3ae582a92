"""Pictures side by side in one picture, for notebooks and reports: labelled rows, nothing picked. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from hfi.errors import InvalidInputError

PAPER, INK, LINE = "#fbfaf7", "#1d1c1a", "#e3dfd6"
GAP_PX, MARGIN_PX, FONT_PX = 4, 8, 14


def picture_grid(
    pictures: Sequence[Image.Image] | Mapping[str, Sequence[Image.Image]], columns: int = 8, side_px: int = 80
) -> Image.Image:
    """All pictures on one sheet, `columns` in a line, in their order.

    Args:
        pictures: a list, or lists by label: each label begins a new line and stands before it.
        columns: pictures in a line.
        side_px: side of the square each picture is fitted into.

    Raises:
        InvalidInputError: there is no picture.
    """
    rows = pictures if isinstance(pictures, Mapping) else {"": pictures}
    lines = [
        (label if start == 0 else "", list(row[start : start + columns]))
        for label, row in rows.items()
        for start in range(0, len(row), columns)
    ]
    if not lines:
        raise InvalidInputError("There is no picture to show: give at least one.")
    font = ImageFont.load_default(FONT_PX)
    label_px = max(round(font.getlength(label)) for label in rows) + 2 * MARGIN_PX if any(rows) else MARGIN_PX
    width = label_px + max(len(line) for _, line in lines) * (side_px + GAP_PX) - GAP_PX + MARGIN_PX
    sheet = Image.new("RGB", (width, 2 * MARGIN_PX + len(lines) * (side_px + GAP_PX) - GAP_PX), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (label, line) in enumerate(lines):
        top = MARGIN_PX + number * (side_px + GAP_PX)
        draw.text((MARGIN_PX, top + side_px // 2), label, fill=INK, font=font, anchor="lm")
        for column, picture in enumerate(line):
            _paste(sheet, draw, picture, (label_px + column * (side_px + GAP_PX), top), side_px)
    return sheet


def _paste(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, picture: Image.Image, place: tuple[int, int], side_px: int
) -> None:
    scale = side_px / max(picture.size)
    fitted = picture.convert("RGB").resize(
        (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), Image.Resampling.LANCZOS
    )
    left, top = place[0] + (side_px - fitted.width) // 2, place[1] + (side_px - fitted.height) // 2
    sheet.paste(fitted, (left, top))
    draw.rectangle((left, top, left + fitted.width - 1, top + fitted.height - 1), outline=LINE)
