"""Results: one table a protocol, its costs and pictures; what is asked for; reports, for researchers alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hfi.config import AttackConfig, EvaluateConfig
from hfi.job_requests import AttackRequest, EvaluateRequest
from hfi.jobs.side_by_side import NUM_GRID_ROWS, build_tables, list_evaluations, newest_of_each_model
from storage import Store
from storage.snapshot import create_snapshot
from tests.ui import people
from tests.ui.changed_models import add_erasure, add_evaluation, import_folder_with_suite
from tests.ui.page_visits import build_visited_store, judge, refusal, visit
from ui.pages.job_fields import Fields
from ui.pages.jobs_frame import read_request
from ui.pages.results import (
    open_project,
    read_attack,
    read_measure,
    show_chosen,
    show_own_fields,
    show_when_done,
    tables_html,
)
from ui.settings import UiSettings


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with build_visited_store(tmp_path / "store") as opened:
        yield opened


def measured(store: Store, *methods: str, **protocol: Any) -> list[str]:
    """Erasures by these methods, each measured; the evaluations' ids."""
    made = [add_erasure(store, method=method) for method in methods]
    return [add_evaluation(store, run_id, 10 + 20 * i, **protocol) for i, run_id in enumerate(made)]


def test_methods_stand_side_by_side_with_intervals_costs_and_their_protocol(store: Store) -> None:
    runs = measured(store, "sdd", "esd")
    html = tables_html(visit(store), "weapons", runs)
    for words in (
        '80.0 %</span> <span class="small">[75.0, 85.0], n 200',
        "[5.0, 15.0]",
        "30.0 %",
        "1 min 15 s",
        "1,234 MiB",
        "95 % interval",
    ):
        assert words in html, words
    assert html.count('class="methods"') == 1 and "Protocol mini-weapons" in html and "threshold 0.5" in html
    assert all(f"/report/{run}.html" in html and f"/artifact/{run}/evaluation/evaluation.json" in html for run in runs)
    assert f"/report/{'+'.join(runs)}/compare.html" in html
    assert html.count("<img") == 3 * 2 * NUM_GRID_ROWS and "shows it" in html and "does not" in html
    assert html.count("<li>") == 5  # what the table says, in sentences


def test_two_protocols_are_never_in_one_table(store: Store) -> None:
    runs = [*measured(store, "sdd", "esd"), *measured(store, "abo", num_inference_steps=25)]
    html = tables_html(visit(store), "weapons", list(reversed(runs)))
    assert html.count('class="methods"') == 2 and "2 protocols." in html
    assert "num inference steps" in html and "must not be compared" in html
    tables = build_tables(store, "weapons", runs)
    assert [len(table.runs) for table in tables] == [2, 1]
    assert len({table.sha256 for table in tables}) == 2


def test_the_newest_evaluation_of_each_model_is_shown_first(store: Store) -> None:
    erased = add_erasure(store)
    _, newest = add_evaluation(store, erased, 10), add_evaluation(store, erased, 20)
    other = measured(store, "esd")[0]
    assert [run.id for run in newest_of_each_model(list_evaluations(store, "weapons"))] == [newest, other]
    panel, erasures, attacked, shown, uncovers, board = open_project(visit(store), "weapons")
    assert not panel["open"] and len(erasures["choices"]) == len(attacked["choices"]) == 2
    assert shown["value"] == [newest, other] and len(shown["choices"]) == 3 and not uncovers["visible"]
    assert "20.0 %" in board
    chosen = open_project(visit(store, erased=erased), "weapons")
    assert chosen[0]["open"] and chosen[1]["value"] == erased


def test_without_results_the_page_says_what_comes_first(store: Store) -> None:
    assert "no changed model yet" in open_project(visit(store), "weapons")[-1]
    add_erasure(store)
    panel, *_, board = open_project(visit(store), "weapons")
    assert panel["open"] and "Nothing has been measured" in board
    assert "no evaluation of project" in refusal(show_chosen, visit(store), "weapons", [store.list_runs()[0].id])


def test_results_come_anew_when_a_job_is_done(store: Store) -> None:
    measured(store, "sdd")
    running = SimpleNamespace(state="running", project="weapons")
    assert all("value" not in found for found in show_when_done(visit(store), running))
    done = SimpleNamespace(state="done", project="weapons")
    assert "sdd, both" in show_when_done(visit(store), done)[2]


def test_pictures_of_the_concept_are_covered_in_sensitive_projects(tmp_path: Path) -> None:
    with build_visited_store(tmp_path / "store", is_sensitive=True) as store:
        html = tables_html(visit(store), "weapons", measured(store, "sdd"))
        assert html.count('<td class="covered">') == 2 * NUM_GRID_ROWS


# --- what is asked for -------------------------------------------------------------------------------------------


def ask(store: Store, kind: Any, read: Any, settings: UiSettings | None = None, **changes: Any) -> Any:
    """The request, or what is wrong by field."""
    config = {EvaluateRequest: EvaluateConfig(), AttackRequest: AttackConfig()}[kind].model_dump()
    names = {
        EvaluateRequest: ("erased", "protocol", "suite", "detector", "num_concept_images", "num_other_images",
                          "num_inference_steps", "guidance_scale", "neighbours", "batch_size", "device"),
        AttackRequest: ("erased", "attack", "suite", "num_images", "num_inference_steps", "num_train_steps", "seed"),
    }[kind]  # fmt: skip
    values = {f"config.{name}": config[name] for name in names}
    fields = Fields(values | {f"config.{name}": value for name, value in changes.items()})
    found = read_request(kind, "weapons", visit(store, "researcher", settings), fields, read, list(fields.values))
    return found or fields.problems


def test_measuring_takes_the_protocol_and_the_model_that_was_changed(store: Store) -> None:
    erased = add_erasure(store)
    request = ask(store, EvaluateRequest, read_measure, erased=erased, protocol="mini-weapons-quick", suite="nonsense")
    assert (request.config.erased, request.config.protocol, request.config.model) == (
        erased,
        "mini-weapons-quick",
        "mini",
    )
    assert request.config.suite == "mini-weapons"  # the protocol fixes it
    assert show_own_fields(visit(store), "")["visible"] and not show_own_fields(visit(store), "mini-weapons")["visible"]
    attack = ask(store, AttackRequest, read_attack, erased=erased, attack="prefix")
    assert (attack.config.attack, attack.config.erased) == ("prefix", erased)


@pytest.mark.parametrize(
    ("changes", "place", "says"),
    [
        ({"erased": None}, "config.erased", "No model is chosen"),
        ({"erased": "0" * 12}, "config.erased", "no run"),
        ({"suite": "/etc/passwd"}, "config.suite", "There are no prompts"),
        ({"num_concept_images": 0}, "config.num_concept_images", "1 or more"),
        ({"detector": "eyes"}, "config.detector", "no choice"),
    ],
)
def test_what_is_wrong_is_told_at_its_field(store: Store, changes: dict[str, Any], place: str, says: str) -> None:
    erased = add_erasure(store)
    found = ask(store, EvaluateRequest, read_measure, **{"erased": erased, "protocol": ""} | changes)
    assert says in found[place] and list(found) == [place]


def test_prompts_of_ones_own_come_from_folders_that_may_be_imported(store: Store, tmp_path: Path) -> None:
    suite, erased = import_folder_with_suite(tmp_path / "suites"), add_erasure(store)
    asked = {"erased": erased, "protocol": "", "suite": str(suite)}
    assert "config.suite" in ask(store, EvaluateRequest, read_measure, **asked)
    allowed = UiSettings(import_folders=(str(suite.parent),))
    assert ask(store, EvaluateRequest, read_measure, allowed, **asked).config.suite == str(suite)


# --- reports -----------------------------------------------------------------------------------------------------


def test_tables_open_with_everything_inside_for_researchers_alone(tmp_path: Path) -> None:
    with people.build_store(tmp_path / "store") as store:
        runs = measured(store, "sdd", "esd")
        app = people.build_pages(store)
        path = f"/report/{'+'.join(runs)}/compare.html"
        answers = {role: people.client_of(app, role).get(path) for role in people.ROLES}
        assert [answers[role].status_code for role in ("researcher", "owner", "reviewer")] == [200, 200, 403]
        page = answers["researcher"]
        assert "data:image/webp" in page.text and "Protocol" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["content-disposition"].startswith("inline")
        client = people.client_of(app, "owner")
        assert client.get(f"{path}?save").headers["content-disposition"].startswith("attachment")
        for bad in (f"/report/{'0' * 12}.html", f"/report/{runs[0]}+x/compare.html", "/report/..%2f..%2fstore.html"):
            assert client.get(bad).status_code == 404, bad
        app.context.close()


def test_the_report_about_one_model_opens(tmp_path: Path) -> None:
    with build_visited_store(tmp_path / "store") as store:
        judge(store)
        run = add_evaluation(store, add_erasure(store, snapshot=create_snapshot(store, "weapons").hash), 10)
        app = people.build_pages(store)
        page = people.client_of(app, "researcher").get(f"/report/{run}.html")
        text = page.text.replace("\N{NARROW NO-BREAK SPACE}", " ")
        assert page.status_code == 200, page.text[:300]
        for words in ("80 %", "10 %", "Same words, same seed", "data:image/webp", "snapshot of judgments"):
            assert words in text, words
        app.context.close()
