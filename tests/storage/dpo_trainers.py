"""Reads the pairs of an export as the two public Diffusion-DPO trainers do, with arrays in the place of tensors.

    python tests/storage/dpo_trainers.py EXPORT

Sources: the columns and steps of the authors' ``train.py`` (SalesforceAIResearch/DiffusionDPO) and of
``train_diffusion_dpo.py`` among diffusers' research projects: keep what has a decided label, decode ``jpg_0`` and
``jpg_1``, put the preferred picture first by ``label_0``, stack the two along the channels, take ``caption``.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Batch = dict[str, Any]


def _pixels(content: bytes, size_px: int) -> np.ndarray[Any, Any]:
    """(3, size, size) in [-1, 1], as the trainers' transforms make it."""
    picture = Image.open(io.BytesIO(content)).convert("RGB").resize((size_px, size_px), Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1


def _preprocess(batch: Batch, size_px: int) -> Batch:
    """The transform of both trainers: preferred and other picture along the channels, and the captions."""
    sides = [[_pixels(content, size_px) for content in batch[column]] for column in ("jpg_0", "jpg_1")]
    stacked = []
    for pair, label_0 in zip(zip(*sides, strict=True), batch["label_0"], strict=True):
        ordered = pair[::-1] if label_0 == 0 else pair
        stacked.append(np.concatenate(ordered, axis=0))
    return {"pixel_values": stacked, "caption": [str(caption) for caption in batch["caption"]]}


def read_batches(folder: Path, cache: Path, batch_size: int = 4, size_px: int = 16) -> Iterator[Batch]:
    """Batches of an export's pairs: ``pixel_values`` (batch, 6, size, size) and captions."""
    from datasets import load_dataset

    rows = load_dataset(str(folder), "pairs", split="train", cache_dir=str(cache))
    decided = [place for place, label_0 in enumerate(rows["label_0"]) if label_0 in (0, 1)]
    rows = rows.select(decided).with_transform(lambda batch: _preprocess(batch, size_px))
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        yield {"pixel_values": np.stack(batch["pixel_values"]), "caption": batch["caption"]}


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        batches = list(read_batches(Path(sys.argv[1]), Path(cache)))
    shapes = sorted({batch["pixel_values"].shape[1:] for batch in batches})
    print(f"{sum(len(batch['caption']) for batch in batches)} pairs of shape {shapes}")


if __name__ == "__main__":
    main()
