"""The routes of the labelling page, as a browser uses them."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from storage import ItemInput
from tests.storage.builders import HandClock, add_pictures
from tests.ui.people import (
    build_pages,
    build_store,
    claim,
    client_of,
    code_of,
    judgment,
    new_uuid,
    submit,
)
from ui.app import Application


def clock_of(app: Application) -> HandClock:
    clock = app.context.store.clock
    assert isinstance(clock, HandClock)
    return clock


def test_claim_gives_pictures_and_nothing_that_tells_gold_apart(annotator: TestClient) -> None:
    items = claim(annotator, 3)
    assert len(items) == 3
    wanted = {"id", "itemId", "kind", "purpose", "images", "shownOrder", "expiresAt", "guidelineVersion", "prompt"}
    assert set(items[0]) == wanted
    image = items[0]["images"][0]
    assert annotator.get(image["url"]).headers["content-type"] == "image/png"
    assert (image["width"], image["height"]) == (8, 8)


def test_claim_again_sends_what_a_reload_lost_and_keeps_what_it_has(app: Application, annotator: TestClient) -> None:
    first = claim(annotator, 4)
    clock_of(app).seconds += 100
    kept, lost = [first[0]["id"], first[1]["id"]], [first[2]["id"], first[3]["id"]]
    again = claim(annotator, 3, kept)
    assert [item["id"] for item in again[:2]] == lost
    assert again[2]["id"] not in kept + lost
    leases = app.context.store.list_leases("weapons", "ann")
    assert len(leases) == 5
    assert {lease.expires_at_us // 1000 for lease in leases} == {again[0]["expiresAt"]}
    assert again[0]["expiresAt"] == first[0]["expiresAt"] + 100_000


def test_claim_says_which_leases_still_stand(app: Application, annotator: TestClient) -> None:
    """Leases that ended while the computer slept, and that somebody else has now, are not among those held."""
    mine = [item["id"] for item in claim(annotator, 12)]
    clock_of(app).seconds += 10_000
    others, third = client_of(app, "reviewer"), client_of(app, "owner")
    assert (len(claim(others, 12)), len(claim(third, 12))) == (12, 12)
    body = annotator.post("/api/v1/projects/weapons/claim", json={"n": 2, "have": mine}).json()
    assert not set(mine) & set(body["held"])
    assert set(body["held"]) == {item["id"] for item in body["items"]}


def test_claim_ends_when_everything_is_handed_out(annotator: TestClient) -> None:
    assert len(claim(annotator, 12)) == 12
    response = annotator.post("/api/v1/projects/weapons/claim", json={"n": 1, "have": []}).json()
    assert len(response["items"]) == 1  # one of its own, lost
    held = list(range(1, 13))
    response = annotator.post("/api/v1/projects/weapons/claim", json={"n": 1, "have": held}).json()
    assert (response["items"], response["reason"]) == ([], "finished")


def test_submit_is_stored_once_however_often_it_is_sent(app: Application, annotator: TestClient) -> None:
    rows = [judgment(item) for item in claim(annotator, 3)]
    assert [result["status"] for result in submit(annotator, *rows)] == ["stored"] * 3
    assert [result["status"] for result in submit(annotator, *rows)] == ["known"] * 3
    assert len(app.context.store.list_judgments("weapons")) == 3
    progress = annotator.get("/api/v1/projects/weapons").json()["progress"]
    assert progress == {"mine": 3, "project": 3, "total": 24}


def test_submit_of_a_bad_judgment_never_loses_the_others(app: Application, annotator: TestClient) -> None:
    items = claim(annotator, 3)
    good, other = judgment(items[0]), judgment(items[1], "no")
    bad = [
        judgment(items[2], "perhaps"),
        judgment(items[2], categories=["rocket"]),
        judgment({"id": 99_999}),
        {**judgment(items[2]), "uuid": "1"},
        {**judgment(items[2]), "extra": 1},
        "nonsense",
    ]
    results = submit(annotator, good, *bad, other)
    assert [result["status"] for result in results] == ["stored", *["invalid"] * 6, "stored"]
    assert all(result["message"] for result in results[1:-1])
    assert len(app.context.store.list_judgments("weapons")) == 2


def test_submit_of_another_answer_to_the_same_assignment_is_a_conflict(annotator: TestClient) -> None:
    item = claim(annotator, 1)[0]
    row = judgment(item)
    assert [r["status"] for r in submit(annotator, row, judgment(item, "no"))] == ["stored", "conflict"]
    assert submit(annotator, {**row, "answer": "no"})[0]["status"] == "conflict"


def test_submit_for_an_expired_lease_is_stored_while_there_is_room(app: Application, annotator: TestClient) -> None:
    items = claim(annotator, 12)
    clock_of(app).seconds += 10_000
    other, third = client_of(app, "reviewer"), client_of(app, "researcher")
    submit(other, *[judgment(item) for item in claim(other, 12)])
    taken = claim(third, 12)[:6]
    submit(third, *[judgment(item) for item in taken])
    app.context.store.release_leases("weapons", "res")
    full = {item["itemId"] for item in taken}
    results = submit(annotator, *[judgment(item) for item in items])
    assert {item["itemId"] for item, r in zip(items, results, strict=True) if r["status"] == "expired"} == full
    assert {r["status"] for r in results} == {"expired", "stored"}
    assert all(item.n_judgments == 2 for item in app.context.store.list_items("weapons"))


def test_submit_for_an_expired_lease_takes_the_place_of_the_same_persons_new_one(
    app: Application, annotator: TestClient
) -> None:
    first = claim(annotator, 12)
    clock_of(app).seconds += 10_000
    claim(annotator, 12)
    assert {result["status"] for result in submit(annotator, *[judgment(item) for item in first])} == {"stored"}
    assert all((i.n_judgments, i.n_leased) == (1, 0) for i in app.context.store.list_items("weapons"))


def test_submit_of_another_accounts_answers_stores_nothing(app: Application, annotator: TestClient) -> None:
    row = judgment(claim(annotator, 1)[0])
    response = annotator.post("/api/v1/judgments", json={"account": "rev", "judgments": [row]})
    assert (response.status_code, code_of(response)) == (409, "other_account")
    assert app.context.store.list_judgments("weapons") == []


def test_submit_keeps_the_browsers_clock_but_never_trusts_it(app: Application, annotator: TestClient) -> None:
    items = claim(annotator, 3)
    times = (1_800_000_000_000, -5, 1e300)
    rows = [judgment(item, judgedAt=time) for item, time in zip(items, times, strict=True)]
    assert {result["status"] for result in submit(annotator, *rows)} == {"stored"}
    kept = [record.judged_at_us for record in app.context.store.list_judgments("weapons")]
    now_us = app.context.store.now_us()
    assert kept == [1_800_000_000_000_000, now_us, now_us]


def test_undo_opens_the_assignment_again_and_relabel_replaces(app: Application, annotator: TestClient) -> None:
    item = claim(annotator, 1)[0]
    row, undo_uuid = judgment(item), new_uuid()
    submit(annotator, row)
    for _ in range(2):  # an undo whose answer was lost is sent again
        undone = annotator.post(f"/api/v1/judgments/{row['uuid']}/undo", json={"undoUuid": undo_uuid}).json()
        assert undone["assignment"]["id"] == item["id"]
    second = judgment(item, "no")
    changed = {**judgment(item, "yes", categories=["gun"]), "supersedes": second["uuid"]}
    assert [r["status"] for r in submit(annotator, second, changed)] == ["stored", "stored"]
    latest = annotator.get("/api/v1/projects/weapons/latest").json()["judgments"]
    assert [(r["uuid"], r["answer"], r["categories"]) for r in latest] == [(changed["uuid"], "yes", ["gun"])]
    assert app.context.store.get_item(item["itemId"]).n_judgments == 1


def test_undo_of_someone_elses_judgment_is_not_found(app: Application, annotator: TestClient) -> None:
    row = judgment(claim(annotator, 1)[0])
    submit(annotator, row)
    other = client_of(app, "reviewer")
    assert other.post(f"/api/v1/judgments/{row['uuid']}/undo", json={"undoUuid": new_uuid()}).status_code == 404


@pytest.mark.parametrize("kind", ["pair", "ranking"])
def test_positions_are_those_shown_and_are_stored_as_the_items_own(tmp_path: Path, kind: str) -> None:
    store = build_store(tmp_path)
    store.create_project("likes", kind=kind, gold_fraction=0, repeat_fraction=0, annotators_per_item=1)
    size = 2 if kind == "pair" else 4
    pictures = add_pictures(store, 8 * size)
    groups = [tuple(pictures[i : i + size]) for i in range(0, 8 * size, size)]
    store.add_items("likes", [ItemInput(group, f"p{i}") for i, group in enumerate(groups)])
    app = build_pages(store)
    client = client_of(app)
    items = claim(client, 8, project="likes")
    assert len({tuple(item["shownOrder"]) for item in items}) > 1
    best = {item["itemId"]: item["images"][-1]["sha256"] for item in items}  # always the one shown last
    answer = {"answer": "second"} if kind == "pair" else {"answer": "ranked", "ranks": [4, 3, 2, 1]}
    submit(client, *[judgment(item, **answer) for item in items])
    for record in store.list_judgments("likes"):
        images = store.get_item(record.item_id).images
        first = {"first": 0, "second": 1}[record.answer] if kind == "pair" else record.ranks.index(1)
        assert images[first] == best[record.item_id]
    latest = client.get("/api/v1/projects/likes/latest?n=8").json()["judgments"]
    assert {row["answer"] for row in latest} == {answer["answer"]}
    assert all(row["ranks"] == answer.get("ranks", []) for row in latest)
    assert all(row["images"][-1]["sha256"] == best[row["itemId"]] for row in latest)
    app.context.close()


def test_training_tells_what_was_expected_and_why(app: Application, annotator: TestClient) -> None:
    store = app.context.store
    gold = store.list_items("weapons")[0]
    store.add_gold("weapons", gold.id, "yes", "A gun.", categories=["gun"], is_training=True)
    assert annotator.get("/api/v1/projects/weapons").json()["training"] == {"isNeeded": True, "done": 0, "total": 1}
    items = claim(annotator, 2)
    assert [item["purpose"] for item in items] == ["training", "normal"]
    results = submit(annotator, *[judgment(item, "no") for item in items])
    expected = {"answer": "yes", "categories": ["gun"]}
    assert results[0]["feedback"] == {"isRight": False, "expected": expected, "explanation": "A gun."}
    assert "feedback" not in results[1]
    assert annotator.get("/api/v1/projects/weapons").json()["training"]["isNeeded"] is False
    assert len(annotator.get("/api/v1/projects/weapons/latest").json()["judgments"]) == 1


def test_consent_comes_before_the_first_picture_and_can_be_taken_back(tmp_path: Path) -> None:
    app = build_pages(build_store(tmp_path, is_sensitive=True))
    client, claim_path = client_of(app), "/api/v1/projects/weapons/claim"
    assert client.post(claim_path, json={"n": 2}).json()["reason"] == "consent"
    assert "disturbing" in client.get("/api/v1/projects/weapons").json()["consent"]["wording"]
    client.post("/api/v1/projects/weapons/consent", json={"isGiven": True})
    assert len(claim(client, 2)) == 2
    client.post("/api/v1/projects/weapons/consent", json={"isGiven": False})
    assert client.post(claim_path, json={"n": 2}).json()["items"] == []
    assert app.context.store.list_leases("weapons", "ann") == []
    app.context.close()


def test_exposure_counts_what_was_uncovered_up_to_the_daily_cap(tmp_path: Path) -> None:
    store = build_store(tmp_path, is_sensitive=True)
    store.set_care("weapons", daily_cap_minutes=1)
    app = build_pages(store)
    client = client_of(app)
    client.post("/api/v1/projects/weapons/consent", json={"isGiven": True})
    items = claim(client, 3)
    submit(client, judgment(items[0], revealedMs=0, elapsedMs=50_000))
    exposure = client.get("/api/v1/projects/weapons").json()["exposure"]
    assert (exposure["revealed"], exposure["minutes"]) == (0, 0.0)
    row = judgment(items[1], revealedMs=60_000, elapsedMs=61_000)
    submit(client, row)
    submit(client, row)  # sent again, counted once
    exposure = client.get("/api/v1/projects/weapons").json()["exposure"]
    assert (exposure["revealed"], exposure["minutes"], exposure["cap"]) == (1, 1.0, 1)
    assert client.post("/api/v1/projects/weapons/claim", json={"n": 1}).json()["reason"] == "cap"
    clock_of(app).seconds += 86_400
    assert len(claim(client, 1)) == 1
    app.context.close()


def test_pause_gives_the_leases_back_and_a_break_hands_out_nothing(app: Application, annotator: TestClient) -> None:
    claim(annotator, 5)
    paused = annotator.post("/api/v1/projects/weapons/pause", json={"minutes": 5}).json()
    assert paused["released"] == 5
    assert all(item.n_leased == 0 for item in app.context.store.list_items("weapons"))
    assert annotator.post("/api/v1/projects/weapons/claim", json={"n": 1}).json()["reason"] == "break"
    clock_of(app).seconds += 301
    assert len(claim(annotator, 1)) == 1


def test_pause_of_no_length_ends_a_break(annotator: TestClient) -> None:
    annotator.post("/api/v1/projects/weapons/pause", json={"minutes": 60})
    annotator.post("/api/v1/projects/weapons/pause")
    assert len(claim(annotator, 1)) == 1


def test_opt_out_takes_the_kind_away_at_once_and_brings_it_back(app: Application, annotator: TestClient) -> None:
    claim(annotator, 3)
    path = "/api/v1/projects/weapons/opt-outs"
    assert annotator.put(path, json={"categories": ["gun"]}).json() == {"optOuts": ["gun"]}
    assert app.context.store.list_leases("weapons", "ann") == []
    assert claim(annotator, 3) == []
    assert annotator.put(path, json={"categories": []}).json() == {"optOuts": []}
    assert len(claim(annotator, 3)) == 3


def test_report_hides_the_picture_from_everyone_at_once(app: Application, annotator: TestClient) -> None:
    item = claim(annotator, 1)[0]
    url, thumb = item["images"][0]["url"], f"/thumb/{item['images'][0]['sha256']}"
    other = client_of(app, "reviewer")
    assert other.get(url).status_code == other.get(thumb).status_code == 200
    for _ in range(2):
        assert annotator.post(f"/api/v1/items/{item['id']}/report", json={"note": "x"}).json() == {"isHidden": True}
    assert other.get(url).status_code == other.get(thumb).status_code == 410
    assert item["itemId"] not in {lease["itemId"] for lease in claim(other, 12)}
    assert app.context.store.list_leases("weapons", "ann") == []
    assert other.post(f"/api/v1/items/{item['id']}/report").status_code == 403  # not their assignment


def test_too_fast_answers_are_kept_and_marked(app: Application, annotator: TestClient) -> None:
    items = claim(annotator, 2)
    results = submit(annotator, judgment(items[0], elapsedMs=40), judgment(items[1], elapsedMs=900))
    assert [(result["status"], result["isTooFast"]) for result in results] == [("stored", True), ("stored", False)]
    assert app.context.store.list_exposures("weapons")[0]["n_too_fast"] == 1


def test_keys_and_theme_are_kept(annotator: TestClient) -> None:
    annotator.put("/api/v1/me/keys", json={"keys": {"yes": "a"}})
    annotator.put("/api/v1/me/keys", json={"enabled": False})
    annotator.put("/api/v1/me/theme", json={"theme": "dark"})
    me = annotator.get("/api/v1/me").json()
    wanted = {"role": "annotator", "theme": "dark", "keys": {"yes": "a"}, "areKeysEnabled": False}
    assert me == {"name": "ann", **wanted}


def test_hidden_prompt_is_nowhere(app: Application, annotator: TestClient) -> None:
    app.context.store.set_care("weapons", shows_prompt=False)
    items = claim(annotator, 2)
    submit(annotator, judgment(items[0]))
    latest = annotator.get("/api/v1/projects/weapons/latest").text
    assert "prompt" not in items[0]
    assert "prompt" not in latest
