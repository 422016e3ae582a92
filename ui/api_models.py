"""What browsers send to the labelling routes; every field has a type and a limit, unknown ones are refused."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MAX_BATCH, MAX_CLAIM, MAX_HAVE = 50, 20, 400
MAX_MS = 7 * 86_400_000

Word = Annotated[str, Field(max_length=40)]
KeyWord = Annotated[str, Field(min_length=1, max_length=20)]
Uuid = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Row = Annotated[int, Field(ge=0, le=2**53)]


class Payload(BaseModel):
    """Base of all: frozen, strict, nothing unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class KeysPayload(Payload):
    """Bindings of keys, whole, and whether keys work at all."""

    keys: Annotated[dict[KeyWord, KeyWord], Field(max_length=60)] | None = None
    enabled: bool | None = None


class ThemePayload(Payload):
    """auto, light or dark."""

    theme: Annotated[str, Field(pattern="^(auto|light|dark)$")]


class ConsentPayload(Payload):
    """Agreeing, or taking it back."""

    isGiven: bool


class OptOutsPayload(Payload):
    """All kinds of content that one does not want to see."""

    categories: Annotated[list[Word], Field(max_length=100)]


class ClaimPayload(Payload):
    """How many assignments a browser can take besides those it has."""

    n: Annotated[int, Field(ge=0, le=MAX_CLAIM)]
    have: Annotated[list[Row], Field(max_length=MAX_HAVE)] = []


class BatchPayload(Payload):
    """Judgments of one account; each is checked for itself."""

    account: Annotated[str, Field(max_length=40)] = ""
    judgments: Annotated[list[Any], Field(max_length=MAX_BATCH)]


class JudgmentPayload(Payload):
    """One answer; positions refer to the order in which the pictures were shown."""

    uuid: Uuid
    assignmentId: Row
    answer: Word
    categories: Annotated[list[Word], Field(max_length=100)] = []
    score: int | None = None
    ranks: Annotated[list[int], Field(max_length=9)] = []
    reason: Annotated[str, Field(max_length=2000)] = ""
    note: Annotated[str, Field(max_length=2000)] = ""
    shownOrder: Annotated[list[int], Field(max_length=9)] = []
    elapsedMs: Annotated[float, Field(ge=0, le=MAX_MS)] = 0
    revealedMs: Annotated[float, Field(ge=0, le=MAX_MS)] = 0
    judgedAt: float = 0
    supersedes: Uuid | None = None


class UndoPayload(Payload):
    """A uuid of one's own for the act of undoing."""

    undoUuid: Uuid


class ReportPayload(Payload):
    """What is wrong, if the person wants to say."""

    note: Annotated[str, Field(max_length=2000)] = ""


class PausePayload(Payload):
    """How long one rests; 0 ends a break."""

    minutes: Annotated[float, Field(ge=0, le=1440)] = 0
