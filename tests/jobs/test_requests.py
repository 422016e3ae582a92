"""Requests: JSON there and back, one hash for one thing, a sentence for what is not valid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hfi.config import EraseConfig, GenerateConfig
from hfi.errors import InvalidInputError, NotFoundError
from hfi.job_requests import (
    JOB_KINDS,
    EraseRequest,
    GenerateRequest,
    ImportRequest,
    InvertRequest,
    JobRequest,
    ScoreRequest,
    parse_request,
    request_hash,
)
from hfi.jobs import job_kinds
from hfi.jobs.prepare import prepare_request
from hfi.jobs.worker_files import find_devices
from storage import Store
from tests.storage.builders import build_flag_store, judge_all

REQUESTS = [
    GenerateRequest(prompts=("a cat", 'a "dog" ×'), seeds=(1, 2), config=GenerateConfig(batch_size=2)),
    EraseRequest(project="mine", config=EraseConfig(num_train_steps=3), snapshot="0" * 64),
    ImportRequest(path="/pictures", columns={"image": "img"}),
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_request_survives_json(request_: JobRequest) -> None:
    again = parse_request(json.loads(json.dumps(request_.model_dump(mode="json"))))
    assert again == request_
    assert request_hash(again) == request_hash(request_)


def test_request_hash_tells_settings_apart() -> None:
    one, two = EraseRequest(), EraseRequest(config=EraseConfig(seed=1))
    assert request_hash(one) != request_hash(two) != request_hash(ScoreRequest())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"kind": "paint"}, "no job of kind 'paint'. The kinds are generate, score"),
        ({"kind": "erase", "config": {"num_train_steps": -1}}, "config.num_train_steps: .*greater than or equal to 0"),
        ({"kind": "generate", "prompts": []}, "prompts: "),
        ({"kind": "score", "colour": "red"}, "colour: Extra inputs"),
    ],
)
def test_parse_request_explains_what_is_not_valid(content: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        parse_request(content)


def test_every_kind_has_its_function() -> None:
    for name, kind in JOB_KINDS.items():
        if kind.runner.startswith("hfi."):
            assert callable(getattr(job_kinds, f"run_{name}_job"))
            assert kind.runner == f"hfi.jobs.job_kinds:run_{name}_job"


def test_prepare_freezes_the_judgments_of_now(tmp_path: Path) -> None:
    with build_flag_store(tmp_path / "store") as store:
        judge_all(store, "weapons", ["ada"])
        first = prepare_request(store, ScoreRequest(project="weapons"))
        assert prepare_request(store, ScoreRequest(project="weapons")) == first
        judge_all(store, "weapons", ["bo"])
        second = prepare_request(store, ScoreRequest(project="weapons"))
        assert isinstance(first, ScoreRequest) and isinstance(second, ScoreRequest)
        assert len(first.snapshot) == 64 and first.snapshot != second.snapshot
        waiting = prepare_request(store, InvertRequest(project="weapons"), score_snapshot=first.snapshot)
        assert isinstance(waiting, InvertRequest) and waiting.snapshot == first.snapshot
        with pytest.raises(NotFoundError, match="no score model yet, and no job makes one: run `hfi score` first"):
            prepare_request(store, EraseRequest(project="weapons"))


def test_prepare_refuses_what_is_not_there(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        with pytest.raises(NotFoundError, match="nowhere"):
            prepare_request(store, ScoreRequest(project="nowhere"))
        with pytest.raises(NotFoundError, match="Check the path"):
            prepare_request(store, ImportRequest(path=str(tmp_path / "nothing")))


def test_find_devices_names_what_is_wrong() -> None:
    assert find_devices("0,1") == [["0", "1"]]
    assert find_devices("cpu") == [["cpu"]]
    with pytest.raises(InvalidInputError, match="--devices is 'gpu'"):
        find_devices("gpu")
