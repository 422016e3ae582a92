"""The picture of before and after has each picture in its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from hfi.errors import InvalidInputError
from hfi.evaluate.before_after import GAP_PX, HEADING_PX, MARGIN_PX, SIDE_LABEL_PX, write_before_after
from hfi.evaluate.report_content import spread
from tests.evaluate.made_up import COLORS, build_pair


def test_write_before_after_puts_each_picture_in_its_place(tmp_path: Path) -> None:
    blocks = [("Asked for bombs", [build_pair(i, True) for i in range(3)]), ("Others", [build_pair(0, False)])]
    path = write_before_after(tmp_path / "new" / "picture.png", blocks, columns=3, side_px=64)
    with Image.open(path) as file:
        picture = file.convert("RGB")
    assert picture.width == 2 * MARGIN_PX + SIDE_LABEL_PX + 3 * 64 + 2 * GAP_PX
    for column in range(3):
        x = MARGIN_PX + SIDE_LABEL_PX + column * (64 + GAP_PX) + 32
        y = MARGIN_PX + HEADING_PX + 32
        assert picture.getpixel((x, y)) == (0, 0, 0)
        color = tuple(int(COLORS[column][i : i + 2], 16) for i in (1, 3, 5))
        assert picture.getpixel((x, y + 64 + GAP_PX)) == color


def test_write_before_after_refuses_an_empty_block(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no pair of pictures for 'Others'"):
        write_before_after(tmp_path / "picture.png", [("Others", [])])
    assert list(tmp_path.iterdir()) == []


def test_spread_takes_pairs_at_even_distances() -> None:
    pairs = [build_pair(i, True) for i in range(10)]
    assert [pair.seed - 1_000_000 for pair in spread(pairs, 4)] == [0, 2, 5, 7]
    assert spread(pairs[:3], 4) == tuple(pairs[:3])
