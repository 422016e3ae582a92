"""Protocols: everything that decides a number besides the model, as one frozen, hashed object. Torch-free.

The same eraser differs tenfold between protocols, so no rate of ours stands without one. A named protocol fixes what a
person chooses; the hashes of prompts and weights are filled in when it is used. A protocol file (`protocol.json`, which
lies beside every result) fixes those too: with it, an evaluation is refused unless it would be the same measurement.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hfi.config import SAMPLER_NAMES, EvaluateConfig
from hfi.errors import ConfigError, InvalidInputError
from hfi.files import write_text_atomically
from storage.records import canonical_json, config_hash, sha256_text

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PROTOCOL_NAME = "protocol.json"
RESULT_NAME = "evaluation.json"
STYLE_JUDGE = "judge-of-styles"  # the embedded world's judge where a style is the concept; `--detector judge` too

# What a person chooses; prompts, seeds and weights follow from it.
NAMED_PROTOCOLS: dict[str, dict[str, Any]] = {
    "mini-weapons": {
        "suite": "mini-weapons", "sampler": "dpm-solver++", "num_inference_steps": 8, "guidance_scale": 3.0,
        "num_concept_images": 200, "num_other_images": 200,
    },
    "mini-weapons-quick": {
        "suite": "mini-weapons", "sampler": "dpm-solver++", "num_inference_steps": 8, "guidance_scale": 3.0,
        "num_concept_images": 64, "num_other_images": 64,
    },
    "mini-weapons-large": {  # a quarter of the variance; no seed of the others
        "suite": "mini-weapons", "sampler": "dpm-solver++", "num_inference_steps": 8, "guidance_scale": 3.0,
        "num_concept_images": 800, "num_other_images": 800, "first_seed": 1_100_000,
    },
    "mini-style-cartoon": {
        "suite": "mini-style-cartoon", "sampler": "dpm-solver++", "num_inference_steps": 8, "guidance_scale": 3.0,
        "num_concept_images": 200, "num_other_images": 200,
    },
}  # fmt: skip
# Fields of an evaluation that a protocol fixes; model, device and batch size are not among them.
FIXED_FIELDS = (
    "suite", "detector", "sampler", "num_inference_steps", "guidance_scale", "num_concept_images", "num_other_images",
    "first_seed", "confidence",
)  # fmt: skip


class FrozenPart(BaseModel):
    """Base of every part: frozen, no unknown key, no number that JSON cannot say."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DetectorSpec(FrozenPart):
    """Which detector, with which weights, read how.

    A picture is flagged when the score of one of `classes` reaches `threshold`.
    """

    name: str
    package: str
    package_version: str
    weights_sha256: Sha256
    classes: tuple[str, ...] = Field(min_length=1)
    threshold: float = Field(ge=0, le=1)
    colour_order: Literal["RGB", "BGR"] = "RGB"

    @property
    def reader_sha256(self) -> str:
        """The identity of what gives the scores; classes and threshold only read them."""
        return config_hash(self.model_dump(mode="json", exclude={"classes", "threshold"}))

    def is_flagged(self, scores: Mapping[str, float]) -> bool:
        """Whether these scores of one picture are a hit."""
        return any(scores.get(name, 0.0) >= self.threshold for name in self.classes)


class Protocol(FrozenPart):
    """One way of measuring; equal hashes mean that two numbers may stand in one table.

    `budget` says what an attack may spend; "" = nobody attacked.
    """

    name: str
    suite: str
    prompts_sha256: Sha256
    num_concept_images: int = Field(ge=0)
    num_other_images: int = Field(ge=0)
    first_seed: int = Field(ge=0)
    sampler: str = "DDIM"
    num_inference_steps: int = Field(ge=1)
    guidance_scale: float = Field(ge=0)
    width_px: int = Field(ge=1)
    height_px: int = Field(ge=1)
    detectors: tuple[DetectorSpec, ...] = Field(min_length=1)
    interval: str = "Wilson; differences: paired, Newcombe"
    confidence: float = Field(gt=0, lt=1)
    budget: str = ""

    @property
    def sha256(self) -> str:
        """Hash over everything but the name."""
        return config_hash(self.model_dump(mode="json", exclude={"name"}))


class EvaluationResult(FrozenPart):
    """What an evaluation leaves behind. Without its protocol it is no result: it can be neither made nor read."""

    protocol: Protocol
    protocol_sha256: Sha256
    models: dict[str, str]
    group: str = ""
    pictures: dict[str, list[dict[str, Any]]]
    figures: dict[str, Any]

    @model_validator(mode="after")
    def _names_its_protocol(self) -> EvaluationResult:
        if self.protocol_sha256 != self.protocol.sha256:
            raise ValueError("the protocol's hash does not fit the protocol: it was changed after the measurement")
        return self


def hash_prompts(prompts: Sequence[Any]) -> str:
    """Hash of a prompt set: prompts, seeds and what is expected, in their order. Records or mappings."""
    rows = [asdict(row) if is_dataclass(row) and not isinstance(row, type) else dict(row) for row in prompts]
    return sha256_text(canonical_json(rows))


def write_result(folder: Path, result: Mapping[str, Any]) -> EvaluationResult:
    """Check a result and write it with its protocol as a file of its own.

    Args:
        folder: gets `evaluation.json` and `protocol.json`.
        result: the fields of `EvaluationResult`; the protocol's hash is filled in.

    Raises:
        InvalidInputError: the protocol is missing or something else is wrong; nothing is written.
    """
    protocol = result.get("protocol")
    given = dict(result)
    if isinstance(protocol, Protocol):
        given.setdefault("protocol_sha256", protocol.sha256)
    try:
        checked = EvaluationResult.model_validate(given)
    except ValidationError as error:
        raise InvalidInputError(f"The result was not written: {_problems(error)}.") from error
    write_text_atomically(folder / RESULT_NAME, checked.model_dump_json(indent=1) + "\n")
    write_text_atomically(folder / PROTOCOL_NAME, checked.protocol.model_dump_json(indent=1) + "\n")
    return checked


def read_result(path: Path) -> EvaluationResult:
    """What `write_result` wrote, from the file or its folder.

    Raises:
        InvalidInputError: there is no such file, or it is no result with its protocol.
    """
    file = path / RESULT_NAME if path.is_dir() else path
    try:
        return EvaluationResult.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{file} cannot be read as a result: run `hfi evaluate` to make one.") from error
    except ValidationError as error:
        raise InvalidInputError(
            f"{file} is not a result with its protocol ({_problems(error)}): run `hfi evaluate` again."
        ) from error


def use_protocol(config: EvaluateConfig) -> tuple[EvaluateConfig, Protocol | None]:
    """The configuration as its protocol fixes it, and the whole protocol where a file names one.

    Raises:
        ConfigError: `config.protocol` is neither a known name nor a protocol file.
    """
    if not config.protocol:
        return config, None
    if config.protocol in NAMED_PROTOCOLS:
        return config.model_copy(update=NAMED_PROTOCOLS[config.protocol]), None
    protocol = read_protocol(Path(config.protocol))
    fixed = protocol.model_dump(include=set(FIXED_FIELDS) - {"detector"})
    name = protocol.detectors[0].name
    fixed["detector"] = "judge" if name == STYLE_JUDGE else name
    fixed["sampler"] = next((key for key, name in SAMPLER_NAMES.items() if name == protocol.sampler), "")
    if not fixed["sampler"]:
        known = ", ".join(SAMPLER_NAMES.values())
        raise ConfigError(f"{config.protocol} names the sampler {protocol.sampler!r}, which is not known: {known}.")
    return EvaluateConfig.model_validate(config.model_dump() | fixed), protocol


def read_protocol(path: Path) -> Protocol:
    """A protocol from its file.

    Raises:
        ConfigError: the file is missing or not a protocol.
    """
    known = ", ".join(NAMED_PROTOCOLS)
    if not path.is_file():
        raise ConfigError(f"There is no protocol {str(path)!r}: give {known}, or a protocol.json of an evaluation.")
    try:
        return Protocol.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        reason = _problems(error) if isinstance(error, ValidationError) else "it is not UTF-8 text"
        raise ConfigError(f"{path} is not a protocol ({reason}): take the protocol.json of an evaluation.") from error


def check_same(wanted: Protocol, found: Protocol) -> None:
    """Refuse a measurement that would not be the one the protocol file describes.

    Raises:
        ConfigError: names every field that differs.
    """
    if wanted.sha256 != found.sha256:
        raise ConfigError(
            f"This would be another measurement than protocol {wanted.name!r} describes. Different: "
            f"{'; '.join(differences(wanted, found))}. Use the same prompts and weights, or another protocol."
        )


def differences(first: Protocol, second: Protocol) -> list[str]:
    """The fields in which two protocols differ, each with both values; the name does not count."""
    texts = []
    for field in Protocol.model_fields:
        one, other = getattr(first, field), getattr(second, field)
        if field != "name" and one != other:
            texts.append(f"{field.replace('_', ' ')}: {_short(one)} against {_short(other)}")
    return texts


def protocol_facts(protocol: Protocol) -> tuple[tuple[str, str], ...]:
    """A protocol as lines of (what, value) for people."""
    last = protocol.first_seed + max(protocol.num_concept_images, protocol.num_other_images) - 1
    detectors = tuple(
        (
            "detector",
            f"{d.name} ({d.package} {d.package_version}), weights {d.weights_sha256[:16]}, {d.colour_order}, "
            f"threshold {d.threshold:g} on {', '.join(d.classes)}",
        )
        for d in protocol.detectors
    )
    return (
        ("protocol", f"{protocol.name}, {protocol.sha256[:16]}"),
        *detectors,
        ("prompts", f"{protocol.suite}, {protocol.prompts_sha256[:16]}: {protocol.num_concept_images} of the concept, "
                    f"{protocol.num_other_images} others"),
        ("seeds", f"{protocol.first_seed} to {last}, the same for every model, never used for learning"),
        ("sampler", f"{protocol.sampler}, {protocol.num_inference_steps} steps, guidance {protocol.guidance_scale:g}, "
                    f"{protocol.width_px} × {protocol.height_px} px"),
        ("interval", f"{protocol.interval}; {100 * protocol.confidence:g} %"),
    )  # fmt: skip


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return json.dumps([f"{spec.name}@{spec.threshold:g}:{spec.weights_sha256[:12]}" for spec in value])
    return str(value)[:24]


def _problems(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'result'}: {e['msg']}" for e in error.errors()[:4])
