"""The numbers of one pass through the loop as a JSON file with fixed keys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hfi.errors import InvalidInputError
from hfi.evaluate.metrics import Interval
from hfi.files import write_text_atomically

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class ResultPart(BaseModel):
    """Base of every part: frozen, no unknown key, no number that JSON cannot say."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RateResult(ResultPart):
    """A share of n pictures with its interval."""

    rate: Share
    low: Share
    high: Share
    n: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _is_in_order(self) -> RateResult:
        if not self.low <= self.rate <= self.high:
            raise ValueError(f"the rate {self.rate} lies outside its interval {self.low} to {self.high}")
        return self

    @classmethod
    def from_interval(cls, interval: Interval) -> RateResult:
        """The same numbers as `wilson_interval` gave them."""
        return cls(rate=interval.estimate, low=interval.low, high=interval.high, n=interval.n)


class BeforeAfter(ResultPart):
    """The same measure on the original and on the changed model."""

    before: RateResult
    after: RateResult


class AgreementResult(ResultPart):
    """Krippendorff's alpha with its interval: 1 = always the same answer, 0 = as by chance."""

    alpha: Annotated[float, Field(ge=-1, le=1)]
    low: Annotated[float, Field(ge=-1, le=1)]
    high: Annotated[float, Field(ge=-1, le=1)]


class AurocResult(ResultPart):
    """Chance that of two pictures, one that shows the concept and one that does not, the first scores higher."""

    auroc: Share
    low: Share
    high: Share


class ScoreModelResult(AurocResult):
    """How well the score model orders held-out pictures: against people's judgments, errors and all, and against what
    simulated annotators saw, whose errors are known."""

    n: Annotated[int, Field(ge=2)]
    without_errors: AurocResult | None = None


class TokenResult(ResultPart):
    """How well the concept tokens stand for what was flagged.

    concept_score: mean concept score of the tokens' own pictures; coverage: share of the flagged pictures that some
    token stands for; vectors: learned embedding rows, all tokens together.
    """

    concept_score: Share
    coverage: Share
    vectors: Count


class StageSeconds(ResultPart):
    """Wall-clock seconds of each stage."""

    generate: Annotated[float, Field(ge=0)]
    judge: Annotated[float, Field(ge=0)]
    score: Annotated[float, Field(ge=0)]
    invert: Annotated[float, Field(ge=0)]
    erase: Annotated[float, Field(ge=0)]
    evaluate: Annotated[float, Field(ge=0)]
    total: Annotated[float, Field(ge=0)]


class DemoResults(ResultPart):
    """Everything that one pass through the loop measured; two passes with one seed differ in the last two keys only."""

    model: str
    images: Count
    judgments: Count
    annotators: Count
    agreement: AgreementResult
    score_model: ScoreModelResult
    token: TokenResult
    removal: BeforeAfter
    others_accuracy: BeforeAfter
    seconds: StageSeconds
    peak_memory_mib: Annotated[float, Field(ge=0)]


def write_results(path: Path, results: Mapping[str, Any] | DemoResults) -> DemoResults:
    """Check the numbers and write them as indented JSON, atomically.

    Args:
        path: File to write.
        results: The keys of `DemoResults`.

    Returns:
        The checked record.

    Raises:
        InvalidInputError: A key is missing, unknown, or its value impossible; nothing is written.
    """
    try:
        checked = results if isinstance(results, DemoResults) else DemoResults.model_validate(dict(results))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidInputError(f"The results were not written to {path}: {problems}.") from error
    write_text_atomically(path, checked.model_dump_json(indent=2) + "\n")
    return checked


def read_results(path: Path) -> DemoResults:
    """The record that `write_results` wrote.

    Raises:
        InvalidInputError: The file is not such a record.
    """
    try:
        return DemoResults.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise InvalidInputError(f"{path} is not a file of results: {error.errors()[0]['msg']}.") from error
