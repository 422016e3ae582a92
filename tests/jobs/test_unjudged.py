"""Pictures that nobody judged: scored all the same, asked about in the order of doubt, erased and retained by score."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hfi.clip import embed_images, load_clip
from hfi.config import EraseConfig, ExportConfig, ScoreConfig
from hfi.errors import InvalidInputError, ModelFolderError, NotFoundError
from hfi.jobs import embeddings, export_model, stages
from hfi.jobs.embeddings import CACHE_NAME, embed_stored
from hfi.jobs.generate import ensure_project
from hfi.jobs.runs import latest_run
from hfi.jobs.score import load_scored_snapshot, unjudged_pictures
from hfi.progress import NullProgress
from storage import Store
from storage.gallery import GalleryFilter
from storage.records import ItemInput, JudgmentInput
from tests import tiny

QUIET = NullProgress()
PROJECT = "p"
NUM_JUDGED, NUM_NEW = 24, 8


def picture(number: int, *, is_red: bool) -> Image.Image:
    """A square of its own: red or blue, with a stripe."""
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[..., 0 if is_red else 2] = 200
    pixels[2 * number % 60 : 2 * number % 60 + 4] = 7 * number % 256
    return Image.fromarray(pixels)


def add_pictures(store: Store, numbers: range) -> None:
    """Red ones of gun prompts and blue ones of cat prompts, in turn."""
    items = []
    for number in numbers:
        is_red = number % 2 == 0
        sha256 = store.add_image(picture(number, is_red=is_red)).sha256
        items.append(ItemInput((sha256,), f"a {'gun' if is_red else 'cat'}, picture {number}"))
    store.add_items(PROJECT, items)


def judge(store: Store) -> None:
    """One person flags what is red."""
    while leases := store.claim(PROJECT, "ann", 50):
        store.submit_judgments(
            [
                JudgmentInput(
                    f"{lease.id:08d}-0000-4000-8000-000000000000",
                    "ann",
                    "yes" if "gun" in lease.prompt else "no",
                    lease.id,
                )
                for lease in leases
            ]
        )


@pytest.fixture
def store(tmp_path: Any) -> Iterator[Store]:
    """24 judged pictures, and then eight that nobody saw; no score model yet."""
    with Store.open(tmp_path / "store") as store:
        ensure_project(store, PROJECT)
        store.add_annotator("ann")
        add_pictures(store, range(NUM_JUDGED))
        judge(store)
        add_pictures(store, range(NUM_JUDGED, NUM_JUDGED + NUM_NEW))
        yield store


def score(store: Store, **settings: Any) -> Any:
    return stages.run_score(store, ScoreConfig(max_epochs=60, patience_epochs=60, **settings), PROJECT, QUIET)


def test_every_picture_of_a_project_is_scored(store: Store) -> None:
    result = score(store)
    snapshot, _, scores = load_scored_snapshot(store, result.run)
    new = unjudged_pictures(store, PROJECT, snapshot)
    assert len(snapshot.images) == NUM_JUDGED and len(new) == NUM_NEW
    assert scores.keys() == {image.sha256 for image in snapshot.images} | {image.sha256 for image in new}
    assert all((scores[image.sha256] >= 0.5) == ("gun" in image.prompt) for image in new)
    assert (result.figures["images"], result.figures["unjudged"], result.figures["unjudged_likely"]) == (24, 8, 4)
    assert "8 pictures that nobody judged are scored too: 4 look like the concept" in result.summary


def test_the_same_again_is_found_and_more_pictures_are_another_run(store: Store) -> None:
    first = score(store)
    assert score(store).run.id == first.run.id
    add_pictures(store, range(40, 42))
    second = score(store)
    assert second.run.id != first.run.id and second.figures["unjudged"] == NUM_NEW + 2


@pytest.mark.parametrize("how", ["disagreement", "doubt"])
def test_people_are_asked_first_where_the_model_is_least_sure(store: Store, how: str) -> None:
    run = score(store, ask_next=how).run
    pairs = json.loads((store.artifact_dir(run.id) / "score-model" / "scores.json").read_text())
    doubt = {sha256: sd if how == "disagreement" else p * (1 - p) for sha256, (p, sd) in pairs.items()}
    store.add_annotator("bo")
    asked = [lease.images[0] for lease in store.claim(PROJECT, "bo", 3)]
    left = {item.images[0] for item in store.list_items(PROJECT) if item.n_judgments == 0} - set(asked)
    assert len(asked) == 3 and min(doubt[sha256] for sha256 in asked) >= max(doubt[sha256] for sha256 in left)


def test_the_order_of_the_queue_can_be_left_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "set_uncertainties", lambda *_: pytest.fail("the order was changed"))
    score(store, ask_next="unchanged")


def test_the_gallery_finds_what_the_model_disputes(store: Store) -> None:
    run = score(store).run
    store.refresh_concept_scores(PROJECT)
    wanted = GalleryFilter(agreement="not judged", order="most disputed by the model")
    shown = [one.sha256 for one in store.list_pictures(PROJECT, wanted).pictures]
    pairs = json.loads((store.artifact_dir(run.id) / "score-model" / "scores.json").read_text())
    assert len(shown) == NUM_NEW
    assert [pairs[sha256][1] for sha256 in shown] == sorted((pairs[sha256][1] for sha256 in shown), reverse=True)


def test_hidden_pictures_are_not_scored(store: Store) -> None:
    (gone, *_) = [item for item in store.list_items(PROJECT) if item.n_judgments == 0]
    store.quarantine_image(gone.images[0], "not to be seen")
    assert score(store).figures["unjudged"] == NUM_NEW - 1


# ---------------------------------------- embeddings are kept


def test_embeddings_are_those_of_the_clip_and_are_computed_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [item.images[0] for item in store.list_items(PROJECT)][:5]
    clip = load_clip("mini", "cpu")
    wanted = embed_images(clip, [store.load_image(name) for name in names])
    monkeypatch.setattr(embeddings, "CHUNK_SIZE", 2)
    given = embed_stored(store, "mini", [*names, names[0]], "cpu")
    np.testing.assert_allclose(given, wanted[[0, 1, 2, 3, 4, 0]], atol=1e-6)
    monkeypatch.setattr(embeddings, "load_clip", lambda *_: pytest.fail("a CLIP was loaded for pictures it had read"))
    np.testing.assert_array_equal(embed_stored(store, "mini", names[::-1], "cpu"), given[:5][::-1])
    (store.path / "cache" / CACHE_NAME).write_bytes(b"no database" * 1000)
    monkeypatch.undo()
    np.testing.assert_allclose(embed_stored(store, "mini", names, "cpu"), wanted, atol=1e-6)


def test_another_clip_reads_for_itself(store: Store, tmp_path: Any) -> None:
    other = tiny.save_pipeline(tmp_path / "model") / "clip"
    names = [item.images[0] for item in store.list_items(PROJECT)][:2]
    assert embed_stored(store, "mini", names).shape[1] != 0
    assert not np.array_equal(embed_stored(store, "mini", names)[0, :4], embed_stored(store, str(other), names)[0, :4])


def test_bad_input_to_embed_is_one_sentence(store: Store, tmp_path: Any) -> None:
    with pytest.raises(InvalidInputError, match="No picture"):
        embed_stored(store, "mini", [])
    with pytest.raises(ModelFolderError, match=r"config\.json is missing"):
        embed_stored(store, str(tmp_path / "none"), ["0" * 64])


# ---------------------------------------- an eraser learns from them


def erase(store: Store, model: str, **settings: Any) -> Any:
    base = {"model": model, "num_train_steps": 1, "batch_size": 1, "targets": "prompts", "bank_batches": 1}
    return stages.run_erase(store, EraseConfig.model_validate(base | settings), PROJECT, QUIET)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save_pipeline(tmp_path_factory.mktemp("unjudged") / "model"))


def test_an_eraser_learns_from_them_when_asked(store: Store, model: str, tmp_path: Any) -> None:
    score(store)
    plain, wide = erase(store, model).figures, erase(store, model, unjudged="by_score").figures
    assert "unjudged_erased" not in plain
    assert (wide["unjudged_erased"], wide["unjudged_retained"]) == (4, 4)
    assert wide["flagged"] == plain["flagged"] == 12 and wide["retained"] == plain["retained"] + 4
    assert wide["model_sha256"] != plain["model_sha256"]
    run = latest_run(store, "erase", PROJECT)
    assert run is not None and erase(store, model, unjudged="by_score").run.id == run.id
    target = tmp_path / "saved.safetensors"
    stages.run_export_model(store, ExportConfig(format="delta"), run.id, target, PROJECT, QUIET)
    card = export_model.card_path(target, "delta").read_text()
    assert "| pictures that nobody judged | 4 erased and 4 retained by the score model" in card


@pytest.mark.parametrize(("enough_if_named", "num_erased"), [(0.45, 6), (0.0, 7)])
def test_score_and_prompt_must_agree(
    store: Store, model: str, monkeypatch: pytest.MonkeyPatch, enough_if_named: float, num_erased: int
) -> None:
    monkeypatch.setattr("hfi.jobs.erase.LIKELY_IF_NAMED", enough_if_named)
    for number, is_red, prompt in (
        (90, False, "a gun, not drawn"),  # erased only if the word is enough
        (91, True, "a cat like a gun"),
        (92, True, "a cat, in red"),  # neither: the score says yes, the prompt says no
        (94, True, "a gun"),
    ):
        sha256 = store.add_image(picture(number, is_red=is_red)).sha256
        store.add_items(PROJECT, [ItemInput((sha256,), prompt)])
    score(store)
    figures = erase(store, model, unjudged="by_score").figures
    assert (figures["unjudged_erased"], figures["unjudged_retained"]) == (num_erased, 4)


def test_pictures_that_came_after_the_score_model_are_left_out(store: Store, model: str) -> None:
    score(store)
    add_pictures(store, range(60, 64))
    assert erase(store, model, unjudged="by_score").figures["unjudged_erased"] == 4


def test_without_such_pictures_the_sentence_says_what_to_do(store: Store, model: str) -> None:
    judge(store)
    score(store)
    with pytest.raises(NotFoundError, match="no scored picture that nobody judged: generate more"):
        erase(store, model, unjudged="by_score")
