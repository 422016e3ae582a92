"""Detectors: what is in a picture, by whom, with which weights. One small interface, results cached, failures reported.

    detector = build_opennsfw()
    readings = read_pictures(detector, {"<sha256>": image, ...}, cache)

A picture that cannot be read has no scores: it is reported, and nobody may count it as safe.
Source of the traps: a numpy RGB array is read channel-swapped by detectors made for OpenCV; see `DetectorSpec`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from PIL import Image

from hfi.evaluate.detector_cache import DetectorCache
from hfi.evaluate.protocol import DetectorSpec

BATCH_SIZE = 64

Scores = dict[str, float]
# Loads a picture by its hash; may raise when it is missing or damaged.
LoadImage = Callable[[str], Image.Image]


@runtime_checkable
class Detector(Protocol):
    """Anything that gives scores for pictures."""

    @property
    def spec(self) -> DetectorSpec:
        """Name, version, weights, classes, threshold, colour order."""
        ...

    def read(self, images: Sequence[Image.Image]) -> list[Scores]:
        """Scores in [0, 1] by class for RGB pictures of any size, in their order; raises where it cannot."""
        ...


@dataclass(frozen=True)
class Reading:
    """What a detector says of one picture: scores by class, or why there are none."""

    scores: Scores = field(default_factory=dict)
    failure: str = ""

    def is_flagged(self, spec: DetectorSpec) -> bool | None:
        """Whether a class reaches the threshold; None = not known, never "no"."""
        return None if self.failure else spec.is_flagged(self.scores)


def read_pictures(
    detector: Detector, sha256s: Sequence[str], load_image: LoadImage, cache: DetectorCache | None = None
) -> dict[str, Reading]:
    """Read each different picture once; what was read before comes from the cache.

    Args:
        detector: who reads.
        sha256s: hashes of the pictures; repeats are read once.
        load_image: gives a picture for its hash.
        cache: where scores are kept; failures are not kept, so that the next run tries again.

    Returns:
        A reading for each hash, those that failed included.
    """
    unique = list(dict.fromkeys(sha256s))
    reader = detector.spec.reader_sha256
    known = cache.get_scores(reader, unique) if cache is not None else {}
    readings = {sha256: Reading(scores) for sha256, scores in known.items()}
    missing = [sha256 for sha256 in unique if sha256 not in readings]
    for start in range(0, len(missing), BATCH_SIZE):
        batch = _read_batch(detector, missing[start : start + BATCH_SIZE], load_image)
        if cache is not None:
            cache.put_scores(reader, {sha256: r.scores for sha256, r in batch.items() if not r.failure})
        readings |= batch
    return readings


def _read_batch(detector: Detector, sha256s: Sequence[str], load_image: LoadImage) -> dict[str, Reading]:
    """Load and read; a batch that fails is read one by one, so that one bad picture costs only itself."""
    images: dict[str, Image.Image] = {}
    readings: dict[str, Reading] = {}
    for sha256 in sha256s:
        try:
            images[sha256] = load_image(sha256)
        except Exception as error:  # stores, file systems and Pillow share no base class
            readings[sha256] = Reading(failure=_reason(error))
    if images:
        try:
            readings |= _checked(images, detector.read(list(images.values())))
        except Exception:  # each detector has a library of its own
            for sha256, image in images.items():
                readings[sha256] = _read_one(detector, sha256, image)
    return readings


def _read_one(detector: Detector, sha256: str, image: Image.Image) -> Reading:
    try:
        return _checked({sha256: image}, detector.read([image]))[sha256]
    except Exception as error:  # each detector has a library of its own
        return Reading(failure=_reason(error))


def _checked(images: Mapping[str, Image.Image], scores: Sequence[Scores]) -> dict[str, Reading]:
    """Readings from scores; a score outside [0, 1] (NaN too) is a failure and not a "no"."""
    readings = {}
    for sha256, row in zip(images, scores, strict=True):
        is_sound = all(0 <= score <= 1 for score in row.values())
        readings[sha256] = Reading(dict(row)) if is_sound else Reading(failure=f"a score is no probability: {row}")
    return readings


def failures_by_reason(readings: Mapping[str, Reading]) -> dict[str, int]:
    """How many pictures could not be read, by reason."""
    counts: dict[str, int] = {}
    for reading in readings.values():
        if reading.failure:
            counts[reading.failure] = counts.get(reading.failure, 0) + 1
    return counts


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def hash_files(paths: Sequence[Path]) -> str:
    """One hash over the contents of files, in their order; of a single file its plain SHA-256."""
    digests = []
    for path in paths:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
