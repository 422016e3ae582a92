"""What can be asked of the queue: one frozen model a kind of job, JSON in and out, never a pickle.

A request holds the same configuration as the command of its name, and everything else that decides what is made.
Importing this module never imports torch or the queue.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, ValidationError

from hfi.config import (
    AttackConfig,
    DetectorName,
    EraseConfig,
    EvaluateConfig,
    ExportConfig,
    GenerateConfig,
    I2PConfig,
    InvertConfig,
    JobConfig,
    ScoreConfig,
)
from hfi.errors import InvalidInputError

PROJECT_TEXT = "Project within the store."
SNAPSHOT_TEXT = "Frozen judgments to work from; empty: frozen, or taken from the newest score model, when submitted."
EXTRA_KINDS_VARIABLE = "HFI_JOB_KINDS"  # modules, separated by commas, that register more kinds when imported


class JobRequest(JobConfig):
    """Base of every request; `kind` names the stage."""

    kind: str
    project: str = Field("default", min_length=1, max_length=40, description=PROJECT_TEXT)


class GenerateRequest(JobRequest):
    """Prompts x seeds -> pictures."""

    kind: Literal["generate"] = "generate"
    config: GenerateConfig = GenerateConfig()
    prompts: tuple[str, ...] = Field(min_length=1, description="Prompts; every one with every seed.")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="Seeds of every prompt.")


class ScoreRequest(JobRequest):
    """Snapshot -> score model."""

    kind: Literal["score"] = "score"
    config: ScoreConfig = ScoreConfig()
    snapshot: str = Field("", description=SNAPSHOT_TEXT)


class InvertRequest(JobRequest):
    """Snapshot and score model -> concept tokens."""

    kind: Literal["invert"] = "invert"
    config: InvertConfig = InvertConfig()
    snapshot: str = Field("", description=SNAPSHOT_TEXT)


class EraseRequest(JobRequest):
    """Tokens and flagged prompts -> a changed model."""

    kind: Literal["erase"] = "erase"
    config: EraseConfig = EraseConfig()
    snapshot: str = Field("", description=SNAPSHOT_TEXT)
    with_samples: bool = Field(False, description="Draw a few prompts before and after, always with the same seed.")
    sample_every_n_steps: int = Field(0, ge=0, description="Draw them also every so many steps of the training.")
    sample_prompts: tuple[str, ...] = Field((), max_length=16, description="What is drawn; empty: of judged pictures.")


class EvaluateRequest(JobRequest):
    """Two models, the same held-out prompts and seeds -> rates with intervals."""

    kind: Literal["evaluate"] = "evaluate"
    config: EvaluateConfig = EvaluateConfig()


class AttackRequest(JobRequest):
    """A changed model -> how often the concept comes back when somebody tries, with a stated budget."""

    kind: Literal["attack"] = "attack"
    config: AttackConfig = AttackConfig()


class I2PRequest(JobRequest):
    """A model on the I2P prompts -> inappropriate probability and expected maximum."""

    kind: Literal["i2p"] = "i2p"
    config: I2PConfig


class VerdictRequest(JobRequest):
    """Detectors look at the pairs that people judged again -> how often each chooses as people do."""

    kind: Literal["verdict"] = "verdict"
    asking: str = Field("", description="Run of `hfi judge-again`; empty: the newest.")
    detectors: tuple[DetectorName, ...] = Field(min_length=1, description="Who looks at the pairs.")
    detector_path: str = Field("", description="Folder or file of the detector's weights.")


class ExportRequest(JobRequest):
    """Snapshot -> dataset folder."""

    kind: Literal["export"] = "export"
    snapshot: str = Field(min_length=6, description="The snapshot's hash, or its first characters.")
    folder: str = Field("", description="A folder that doesn't exist yet; empty: an artifact of the run, in the store.")
    with_notes: bool = Field(False, description="Include annotators' free-text notes.")
    license: str = Field("other", description="The licence asked for.")


class SaveRequest(JobRequest):
    """An erased model -> the format that somebody needs; loaded again and compared before it is called done."""

    kind: Literal["save"] = "save"
    source: str = Field(min_length=1, max_length=40, description="Id of the erasing run whose model is saved.")
    config: ExportConfig = ExportConfig(format="single-file")


class ImportRequest(JobRequest):
    """A folder of pictures, an export, or parquet -> feedback in the store."""

    kind: Literal["import"] = "import"
    project: str = Field("", max_length=40, description="Project to import into; empty: named after the path.")
    path: str = Field(min_length=1, description="Folder of pictures, an export, or parquet.")
    source: str = Field("auto", description="auto, export, folder, pick-a-pic or parquet.")
    project_kind: str | None = Field(None, description="Kind of a project that is made.")
    columns: dict[str, str] = Field({}, description="Column of each field, for parquet.")
    skip_bad: bool = Field(False, description="Import the good rows although some are bad.")


class PushRequest(JobRequest):
    """Snapshot -> dataset repository on the Hub; the token comes from the environment of the worker alone."""

    kind: Literal["push"] = "push"
    snapshot: str = Field(min_length=6, description="The snapshot's hash, or its first characters.")
    repository: str = Field(min_length=3, max_length=200, description="owner/name of the dataset repository.")
    typed_for_public: str = Field("", max_length=200, description="The same name, typed again: everybody may read it.")
    with_notes: bool = Field(False, description="Include annotators' free-text notes.")
    license: str = Field("other", description="The licence asked for.")


@dataclass(frozen=True)
class JobKind:
    """A kind of job: how its request looks and what runs it.

    Args:
        request_class: its model; the default of its field `kind` is the kind's name.
        runner: `module:function`, called in the job process as `function(store, request, progress) -> StageResult`.
        is_split: whether it shares its work among the processes of `accelerate launch`.
    """

    request_class: type[JobRequest]
    runner: str
    is_split: bool = False

    @property
    def name(self) -> str:
        """The kind's name."""
        return str(self.request_class.model_fields["kind"].default)


JOB_KINDS: dict[str, JobKind] = {}
SPLIT_KINDS = ("generate", "invert", "erase", "evaluate")  # whose work several processes share


def register_job_kind(kind: JobKind) -> None:
    """Let the queue take requests of one more kind."""
    JOB_KINDS[kind.name] = kind


for _request_class in (
    GenerateRequest,
    ScoreRequest,
    InvertRequest,
    EraseRequest,
    EvaluateRequest,
    AttackRequest,
    I2PRequest,
    VerdictRequest,
    ExportRequest,
    SaveRequest,
    ImportRequest,
    PushRequest,
):
    _name = _request_class.model_fields["kind"].default
    register_job_kind(JobKind(_request_class, f"hfi.jobs.job_kinds:run_{_name}_job", is_split=_name in SPLIT_KINDS))


def job_kind(name: str) -> JobKind:
    """The kind of that name.

    Raises:
        InvalidInputError: there is none.
    """
    for module in filter(None, os.environ.get(EXTRA_KINDS_VARIABLE, "").split(",")):
        importlib.import_module(module)
    if name not in JOB_KINDS:
        raise InvalidInputError(f"There is no job of kind {name!r}. The kinds are {', '.join(JOB_KINDS)}.")
    return JOB_KINDS[name]


def parse_request(content: Mapping[str, Any]) -> JobRequest:
    """A request from its JSON form.

    Raises:
        InvalidInputError: the kind is unknown, or a field breaks its rule.
    """
    request_class = job_kind(str(content.get("kind", ""))).request_class
    try:
        return request_class.model_validate(dict(content))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidInputError(
            f"The request of kind {content.get('kind')!r} is not valid: {place}: {first['msg']}. Submit it again."
        ) from error


def request_hash(request: JobRequest) -> str:
    """What tells two requests apart: equal requests have equal hashes, whoever made them."""
    text = json.dumps(request.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
