"""Detectors look at pairs that people judged again, as a job; what they said is there afterwards without them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hfi.config import I2PConfig, JudgeAgainConfig
from hfi.errors import InvalidInputError, NotFoundError
from hfi.job_requests import I2PRequest, VerdictRequest, parse_request
from hfi.jobs.evaluate import EVALUATION_ARTIFACT, write_result_once
from hfi.jobs.job_kinds import run_verdict_job
from hfi.jobs.judge_again import run_judge_again
from hfi.jobs.prepare import prepare_request
from hfi.jobs.verdict import find_asking, known_detectors, read_verdict
from hfi.progress import NullProgress
from storage import Store
from tests.evaluate.made_up import build_protocol
from tests.ui.changed_models import NUM, add_erasure, add_evaluation, judge_pairs
from tests.ui.people import build_store

QUIET = NullProgress()


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Store]:
    """A store in which one person has judged the pairs of one evaluation."""
    with build_store(tmp_path / "store") as store:
        add_evaluation(store, add_erasure(store), 60)
        run_judge_again(store, JudgeAgainConfig(num_pairs=NUM, annotators_per_item=1), "weapons", QUIET)
        judge_pairs(store, "weapons-again", "cy", NUM)
        yield store


def test_a_detector_that_looked_is_compared_with_people_from_then_on(asked: Store) -> None:
    done = run_verdict_job(asked, VerdictRequest(project="weapons", detectors=("opennsfw",)), QUIET)
    assert done.run.kind == "verdict" and done.figures["pictures"] == 2 * NUM and done.figures["unread"] == 0
    asking = find_asking(asked, "weapons")
    assert {spec.name for spec in known_detectors(asked, "weapons", asking)} == {"judge", "opennsfw"}
    share = read_verdict(asked, "weapons")["detectors"]["opennsfw"]
    assert share is not None and 0 < share["n"] <= NUM


def test_nobody_was_asked_yet(tmp_path: Path) -> None:
    with build_store(tmp_path / "store") as store, pytest.raises(NotFoundError, match="Nobody was asked"):
        run_verdict_job(store, VerdictRequest(project="weapons", detectors=("opennsfw",)), QUIET)


def test_requests_name_their_files_in_full_and_their_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "i2p.csv").write_text("prompt\n", encoding="utf-8")
    with build_store(tmp_path / "store") as store:
        request = prepare_request(store, I2PRequest(project="weapons", config=I2PConfig(prompts="i2p.csv")))
        assert isinstance(request, I2PRequest) and request.config.prompts == str(tmp_path / "i2p.csv")
        with pytest.raises(NotFoundError, match=r"no file or folder 'no\.csv'"):
            prepare_request(store, I2PRequest(project="weapons", config=I2PConfig(prompts="no.csv")))
        with pytest.raises(NotFoundError):
            prepare_request(store, VerdictRequest(project="nowhere", detectors=("judge",)))
    with pytest.raises(InvalidInputError, match="detectors"):
        parse_request({"kind": "verdict", "detectors": []})


def test_a_judge_of_another_concept_is_not_compared_with_people(asked: Store) -> None:
    """People were asked about weapons; whoever looked for a style says nothing about that."""
    asking = find_asking(asked, "weapons")
    spec = build_protocol().detectors[0].model_copy(update={"name": "judge-of-styles", "classes": ("cartoon",)})
    content = {"models": {}, "pictures": {}, "figures": {}}
    for detector in (spec, spec.model_copy(update={"name": "score"})):
        protocol = build_protocol(suite="mini-style-cartoon", detectors=(detector,))
        run = asked.start_run("evaluate", {"project": "weapons", "config": {}, "at": detector.name})
        write_result_once(asked, run, EVALUATION_ARTIFACT, {**content, "protocol": protocol, "group": "style-cartoon"})
        asked.finish_run(run.id)
    assert [known.name for known in known_detectors(asked, "weapons", asking)] == ["judge", "score"]
