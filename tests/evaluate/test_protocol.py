"""A protocol fixes what decides a number; a result without one can be neither written nor read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hfi.config import EvaluateConfig
from hfi.errors import ConfigError, InvalidInputError
from hfi.evaluate.protocol import (
    DetectorSpec,
    Protocol,
    check_same,
    differences,
    hash_prompts,
    protocol_facts,
    read_result,
    use_protocol,
    write_result,
)
from hfi.evaluate.suites import EvaluationPrompt
from tests.evaluate.made_up import build_protocol


def result(**changes: Any) -> dict[str, Any]:
    return {"protocol": build_protocol(), "models": {}, "pictures": {}, "figures": {"n": 1}, **changes}


def test_protocol_hash_counts_everything_but_the_name() -> None:
    first = build_protocol()
    assert build_protocol(name="another").sha256 == first.sha256
    for change in (
        {"guidance_scale": 7.5}, {"num_inference_steps": 50}, {"first_seed": 1}, {"width_px": 512},
        {"prompts_sha256": "b" * 64}, {"confidence": 0.9}, {"budget": "40 iterations"},
    ):  # fmt: skip
        assert build_protocol(**change).sha256 != first.sha256, change


@pytest.mark.parametrize(
    "change",
    [{"threshold": 0.6}, {"classes": ("axe",)}, {"colour_order": "BGR"}, {"weights_sha256": "c" * 64},
     {"package_version": "2"}],
)  # fmt: skip
def test_protocol_hash_counts_every_part_of_a_detector(change: dict[str, Any]) -> None:
    first = build_protocol()
    spec = DetectorSpec.model_validate(first.detectors[0].model_dump() | change)
    changed = first.model_copy(update={"detectors": (spec,)})
    assert changed.sha256 != first.sha256
    assert len(differences(first, changed)) == 1


def test_detector_spec_reads_scores_anew_for_another_threshold_without_reading_pictures_anew() -> None:
    spec = build_protocol().detectors[0]
    strict = spec.model_copy(update={"threshold": 0.9})
    assert strict.reader_sha256 == spec.reader_sha256
    assert spec.is_flagged({"bomb": 0.6, "cat": 1.0}) and not strict.is_flagged({"bomb": 0.6, "cat": 1.0})


def test_write_result_round_trips_and_lays_the_protocol_beside_it(tmp_path: Path) -> None:
    write_result(tmp_path, result())
    assert read_result(tmp_path).figures == {"n": 1}
    assert Protocol.model_validate_json((tmp_path / "protocol.json").read_text()) == build_protocol()


@pytest.mark.parametrize("protocol", [None, {}, {"name": "x"}])
def test_write_result_refuses_a_result_without_its_protocol(tmp_path: Path, protocol: object) -> None:
    with pytest.raises(InvalidInputError, match="not written"):
        write_result(tmp_path, result(protocol=protocol))
    assert list(tmp_path.iterdir()) == []


def test_read_result_refuses_a_protocol_changed_after_the_measurement(tmp_path: Path) -> None:
    write_result(tmp_path, result())
    file = tmp_path / "evaluation.json"
    content = json.loads(file.read_text())
    content["protocol"]["guidance_scale"] = 9.0
    file.write_text(json.dumps(content))
    with pytest.raises(InvalidInputError, match="changed after the measurement"):
        read_result(tmp_path)


def test_read_result_names_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="run `hfi evaluate`"):
        read_result(tmp_path)
    (tmp_path / "evaluation.json").write_bytes(b"\xff")
    with pytest.raises(InvalidInputError, match=r"evaluation\.json"):
        read_result(tmp_path)


def test_use_protocol_fixes_what_it_knows_and_leaves_the_rest(tmp_path: Path) -> None:
    config = EvaluateConfig(protocol="mini-weapons-quick", num_inference_steps=99, batch_size=7, model="m")
    fixed, protocol = use_protocol(config)
    assert (fixed.num_inference_steps, fixed.num_concept_images, fixed.batch_size, fixed.model) == (8, 64, 7, "m")
    assert fixed.sampler == "dpm-solver++" and protocol is None
    write_result(tmp_path, result())
    fixed, protocol = use_protocol(config.model_copy(update={"protocol": str(tmp_path / "protocol.json")}))
    assert protocol == build_protocol()
    assert (fixed.detector, fixed.first_seed, fixed.guidance_scale) == ("judge", 1_000_000, 3.0)
    assert fixed.sampler == "ddim"


def test_use_protocol_asks_the_judge_where_it_judged_styles(tmp_path: Path) -> None:
    spec = build_protocol().detectors[0].model_copy(update={"name": "judge-of-styles", "classes": ("cartoon",)})
    file = tmp_path / "protocol.json"
    file.write_text(build_protocol(suite="mini-style-cartoon", detectors=(spec,)).model_dump_json())
    fixed, _ = use_protocol(EvaluateConfig(protocol=str(file)))
    assert (fixed.detector, fixed.suite) == ("judge", "mini-style-cartoon")


def test_use_protocol_names_a_sampler_that_is_not_known(tmp_path: Path) -> None:
    file = tmp_path / "protocol.json"
    file.write_text(build_protocol().model_copy(update={"sampler": "Heun"}).model_dump_json())
    with pytest.raises(ConfigError, match=r"'Heun', which is not known: DDIM, DPM-Solver\+\+ 2M"):
        use_protocol(EvaluateConfig(protocol=str(file)))


@pytest.mark.parametrize("content", [None, b"{}", b"\xff\xfe"])
def test_use_protocol_names_a_file_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "p.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mini-weapons|protocol\.json"):
        use_protocol(EvaluateConfig(protocol=str(file)))


def test_check_same_names_every_difference() -> None:
    check_same(build_protocol(), build_protocol(name="x"))
    with pytest.raises(ConfigError, match=r"guidance scale: 3\.0 against 7\.5; .*|.*guidance scale: 3\.0 against 7\.5"):
        check_same(build_protocol(), build_protocol(guidance_scale=7.5, num_inference_steps=50))


def test_hash_prompts_counts_prompt_seed_and_order() -> None:
    rows = [EvaluationPrompt("a cat", 1), EvaluationPrompt("a dog", 2)]
    assert hash_prompts(rows) == hash_prompts(list(rows))
    assert (
        len({hash_prompts(rows), hash_prompts(rows[::-1]), hash_prompts([EvaluationPrompt("a cat", 3), rows[1]])}) == 3
    )


def test_protocol_facts_name_detector_version_weights_threshold_and_seeds() -> None:
    text = " ".join(f"{what} {value}" for what, value in protocol_facts(build_protocol()))
    for part in ("judge (hfi 0.1.0)", "a" * 16, "threshold 0.5", "1000000 to 1000199", "guidance 3", "64 × 64"):
        assert part in text
