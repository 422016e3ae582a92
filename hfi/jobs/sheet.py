"""A contact sheet: what a model of the embedded kind draws of every object in every style."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from hfi.config import SamplerConfig
from hfi.progress import Progress

LABEL_HEIGHT_PX = 12
SHEET_SEED = 3_000_000
SCALE = 2


def write_contact_sheet(model: str, path: Path, progress: Progress) -> Path:
    """Draw every object of the embedded world once in every style and write one picture.

    Args:
        model: model folder, Hub id or `mini`.
        path: PNG file to write.
        progress: told about every picture.

    Raises:
        ModelFolderError: the model is missing or lacks a part.
    """
    from hfi.generate import GenerationRequest, generate
    from hfi.mini.detect import load_detector
    from hfi.mini.vocabulary import words_for
    from hfi.mini.world import fill_template
    from hfi.pipelines import load_pipeline

    world = load_detector("judge").world
    backgrounds = world.backgrounds
    template = "{a_style_one} on {a_background} background"
    prompts = [
        fill_template(template, words_for(name)[:1], style, backgrounds[(column + row) % len(backgrounds)])
        for row, style in enumerate(world.styles)
        for column, name in enumerate(world.objects)
    ]
    progress.start("sheet", len(prompts))
    requests = [GenerationRequest(prompt, SHEET_SEED + index) for index, prompt in enumerate(prompts)]
    pictures = [
        image for _, image in generate(load_pipeline(model), requests, SamplerConfig(), lambda *_: progress.advance())
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    lay_out(pictures, list(world.objects), len(world.styles)).save(path, optimize=True)
    progress.finish(str(path))
    return path


def lay_out(pictures: list[Image.Image], names: list[str], num_styles: int, columns: int = 11) -> Image.Image:
    """Blocks of `columns` objects; each object's styles stand under each other, its name above them."""
    side = pictures[0].width * SCALE
    block_height = LABEL_HEIGHT_PX + num_styles * side
    blocks = -(-len(names) // columns)
    sheet = Image.new("RGB", (columns * side, blocks * block_height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, name in enumerate(names):
        left, top = index % columns * side, index // columns * block_height
        draw.text((left + 2, top), name, fill="black", font_size=10)
        for row in range(num_styles):
            picture = pictures[row * len(names) + index].resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(picture, (left, top + LABEL_HEIGHT_PX + row * side))
    return sheet
