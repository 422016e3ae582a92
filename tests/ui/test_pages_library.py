"""Library: what was made, each with its way back to the judgments, and the files to take along; nobody else's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hfi.job_requests import SaveRequest
from storage import Store
from storage.records import Run
from storage.snapshot import create_snapshot
from tests.ui import people
from tests.ui.page_visits import SCRIPT, build_visited_store, judge, visit
from ui.downloads import find_in_artifacts
from ui.pages.job_fields import Fields
from ui.pages.library import Runs, describe_model, format_bytes, library_html, open_library, read_saving, show_library


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with build_visited_store(tmp_path / "store") as opened:
        judge(opened)
        yield opened


def add_run(store: Store, kind: str, snapshot: str, files: dict[str, bytes], artifact: str, **rest: object) -> Run:
    """A finished run with one artifact, recorded as the stages record theirs."""
    settings = {"project": "weapons", "config": rest.get("config", {}), "inputs": rest.get("inputs", {})}
    run = store.start_run(kind, settings, snapshot)
    with store.writing_artifact(run.id, artifact, kind) as folder:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return store.finish_run(run.id, "done", rest.get("metrics", {}), 12.0)  # type: ignore[arg-type]


def fill_library(store: Store) -> dict[str, Run]:
    """A score model, tokens, an erased model saved as one file, and a dataset."""
    snapshot = create_snapshot(store, "weapons").hash
    figures = {"auroc": 0.9, "low": 0.8, "high": 0.95, "images": 12}
    score = add_run(store, "score", snapshot, {"scores.json": b"{}"}, "score-model", metrics=figures)
    card = {"placeholder": "<gun>", "folder": "gun", "previews": ["preview-1.png"], "concept_score": 0.8}
    files = {
        "tokens.json": json.dumps({"tokens": [card]}).encode(),
        "gun/learned_embeds.safetensors": b"rows",
        "gun/webui/gun.safetensors": b"rows",
        "gun/preview-1.png": b"\x89PNG",
    }
    inputs = {"score_run": score.id}
    told = {"tokens": 1, "coverage": 0.5}
    tokens = add_run(store, "invert", snapshot, files, "tokens", inputs=inputs, metrics=told)
    inputs |= {"token_run": tokens.id}
    config = {"method": "sdd", "model": "mini", "targets": "both"}
    model = add_run(store, "erase", snapshot, {"unet/w": b"x" * 2000}, "model", inputs=inputs, config=config)
    told = {"source": model.id, "file": "erased.safetensors"}
    saving = {"format": "single-file", "dtype": "float16"}
    saved = add_run(store, "save", snapshot, {"erased.safetensors": b"y"}, "saved", config=saving, metrics=told)
    dataset = add_run(store, "export", snapshot, {"README.md": b"z"}, "dataset", metrics={"rows": {"items": 12}})
    return {"score": score, "tokens": tokens, "model": model, "saved": saved, "dataset": dataset}


def test_an_empty_library_says_where_things_are_made(store: Store, tmp_path: Path) -> None:
    html = library_html(visit(store), "weapons")
    assert html.count("None yet") == 4
    with Store.open(tmp_path / "empty") as empty:
        empty.add_annotator("boss", role="owner")
        assert "Set one up first" in open_library(visit(empty))[1]
    assert open_library(visit(store, project="weapons"))[0]["value"] == "weapons"


def test_everything_is_there_with_its_way_to_the_judgments(store: Store) -> None:
    made = fill_library(store)
    html, source, saving, uncovers = show_library(visit(store), "weapons")
    assert saving["visible"] and not uncovers["visible"] and source["value"] == made["model"].id
    for address in (
        f"/artifact/{made['model'].id}/model.zip",
        f"/artifact/{made['saved'].id}/saved/erased.safetensors",
        f"/artifact/{made['tokens'].id}/tokens/gun/learned_embeds.safetensors",
        f"/artifact/{made['tokens'].id}/tokens/gun/webui/gun.safetensors",
        f"/artifact/{made['score'].id}/score-model.zip",
        f"/download/{made['dataset'].id}.zip",
    ):
        assert f'href="{address}"' in html
    chain = Runs(store, "weapons").chain(made["model"])
    assert [link.title.split()[0] for link in chain] == ["Tokens", "Score", "Snapshot", "24"]
    assert "24 judgments of 12 items" in chain[-1].title and "2 annotators" in chain[-1].text
    assert "One file, for A1111 and ComfyUI, float16" in html


def test_other_projects_and_unfinished_runs_are_not_shown(store: Store) -> None:
    fill_library(store)
    store.create_project("other")
    assert library_html(visit(store), "other").count("None yet") == 4
    store.start_run("erase", {"project": "other", "config": {}})
    assert "Folder of diffusers" not in library_html(visit(store), "other")


def test_tokens_of_sensitive_projects_are_covered(tmp_path: Path) -> None:
    with build_visited_store(tmp_path / "store", is_sensitive=True) as sensitive:
        judge(sensitive)
        fill_library(sensitive)
        html, _, _, uncovers = show_library(visit(sensitive), "weapons")
        assert 'class="board tiny covered"' in html and uncovers["visible"]


def test_what_people_named_does_not_become_html(store: Store) -> None:
    snapshot = create_snapshot(store, "weapons").hash
    card = {"placeholder": SCRIPT, "folder": SCRIPT, "previews": [SCRIPT], "concept_score": 0.8}
    files = {"tokens.json": json.dumps({"tokens": [card]}).encode()}
    add_run(store, "invert", snapshot, files, "tokens", metrics={"tokens": 1})
    config = {"method": SCRIPT, "model": SCRIPT}
    run = add_run(store, "erase", snapshot, {"w": b""}, "model", config=config)
    html = library_html(visit(store), "weapons")
    assert "<script" not in html and "&lt;script&gt;" in html
    assert describe_model(Runs(store, "weapons"), run, [])["downloads"]


def test_saving_needs_a_model() -> None:
    fields = Fields({"source": None})
    read_saving(None, fields)  # type: ignore[arg-type]
    assert "No model is chosen" in fields.problems["source"]
    assert SaveRequest(source="a").config.format == "single-file"
    assert [format_bytes(size) for size in (0, 999, 1500, 2 * 10**9)] == ["0 B", "999 B", "1.5 kB", "2.0 GB"]


def test_artifacts_are_sent_to_researchers_and_lead_nowhere_else(tmp_path: Path) -> None:
    store = people.build_store(tmp_path / "store")
    run = store.start_run("erase", {"project": "weapons"})
    with store.writing_artifact(run.id, "model", "model") as folder:
        (folder / "w.bin").write_bytes(b"weights")
        (folder / "page.html").write_text("<script>alert(1)</script>")
        (folder / "look.png").write_bytes(b"\x89PNG")
        (folder / ".hidden").write_bytes(b"secret")
    (tmp_path / "store" / "secret.png").write_bytes(b"secret")
    app = people.build_pages(store)
    try:
        root = f"/artifact/{run.id}"
        for role, status in (("nobody", 401), ("annotator", 403), ("reviewer", 403), ("researcher", 200)):
            assert people.client_of(app, role).get(f"{root}/model/w.bin").status_code == status
        client = people.client_of(app, "researcher")
        page = client.get(f"{root}/model/page.html")
        assert page.headers["content-type"] == "application/octet-stream"
        assert page.headers["content-disposition"].startswith("attachment")
        assert client.get(f"{root}/model/look.png").headers["content-type"] == "image/png"
        assert client.get(f"{root}/model.zip").headers["content-type"] == "application/zip"
        outside = ("../../secret.png", "..%2f..%2fsecret.png", "model/.hidden", "model", "nothing", "../secret.png.zip")
        for path in outside:
            assert client.get(f"{root}/{path}").status_code == 404, path
        assert client.get("/artifact/nothing/model.zip").status_code == 404
        assert find_in_artifacts(store, run.id, "model/w.bin").read_bytes() == b"weights"
    finally:
        app.context.close()
