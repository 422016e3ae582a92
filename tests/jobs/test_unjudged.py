"""Pictures that nobody judged: scored all the same, asked about in the order of doubt, erased and retained by score."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hfi.clip import embed_images, load_clip
from hfi.config import EraseConfig, ExportConfig, GenerateConfig, ScoreConfig
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
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)  # the tiny model's own size
    pixels[..., 0 if is_red else 2] = 200
    pixels[number % 30 : number % 30 + 2] = 7 * number % 256
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
def store(tmp_path: Path) -> Iterator[Store]:
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
@pytest.mark.parametrize("is_made_before", [False, True])
def test_people_are_asked_first_where_the_model_is_least_sure(store: Store, how: str, is_made_before: bool) -> None:
    if is_made_before:
        made = score(store, ask_next="unchanged").run
    run = score(store, ask_next=how).run
    assert not is_made_before or run.id == made.id, "the order is no part of the model"
    pairs = json.loads((store.artifact_dir(run.id) / "score-model" / "scores.json").read_text())
    doubt = {sha256: sd if how == "disagreement" else p * (1 - p) for sha256, (p, sd) in pairs.items()}
    store.add_annotator("bo")
    asked = [lease.images[0] for lease in store.claim(PROJECT, "bo", 3)]
    left = {item.images[0] for item in store.list_items(PROJECT)} - set(asked)  # half judged ones too
    assert len(asked) == 3 and min(doubt[sha256] for sha256 in asked) >= max(doubt[sha256] for sha256 in left)


def test_an_ensemble_of_one_is_asked_for_its_doubt(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[int, float]] = []
    monkeypatch.setattr(Store, "set_uncertainties", lambda _, __, doubts: given.append(doubts))
    score(store, num_members=1)
    assert min(given[0].values()) > 0


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


def test_a_picture_of_a_judged_item_or_of_known_answer_is_no_longer_unjudged(store: Store) -> None:
    snapshot, _, _ = load_scored_snapshot(store, score(store).run)
    first, second = unjudged_pictures(store, PROJECT, snapshot)[:2]
    (lease,) = [lease for lease in store.claim(PROJECT, "ann", 50) if lease.images[0] == first.sha256]
    store.submit_judgments([JudgmentInput("00000000-0000-4000-8000-000000009999", "ann", "no", lease.id)])
    (item,) = [item for item in store.list_items(PROJECT) if item.images[0] == second.sha256]
    store.add_gold(PROJECT, item.id, "no", "a cat")
    left = {picture.sha256 for picture in unjudged_pictures(store, PROJECT, snapshot)}
    assert len(left) == NUM_NEW - 2 and not left & {first.sha256, second.sha256}


def test_pictures_of_rankings_have_the_prompts_they_were_made_from(store: Store, model: str) -> None:
    ensure_project(store, "order", kind="ranking")
    sampler = GenerateConfig(model=model, num_inference_steps=1)
    stages.run_generate(store, sampler, ["a cat", "a dog", "a fox", "a pig", "an owl"], [0, 1], "order", QUIET)
    made = {record.image_sha256: record.params.prompt for record in store.list_generations("order")}
    nothing = load_scored_snapshot(store, score(store).run)[0]
    assert {picture.sha256: picture.prompt for picture in unjudged_pictures(store, "order", nothing)} == made


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


def test_another_clip_reads_for_itself(store: Store, tmp_path: Path) -> None:
    other = tiny.save_pipeline(tmp_path / "model") / "clip"
    names = [item.images[0] for item in store.list_items(PROJECT)][:2]
    assert embed_stored(store, "mini", names).shape[1] != 0
    assert not np.array_equal(embed_stored(store, "mini", names)[0, :4], embed_stored(store, str(other), names)[0, :4])


def test_bad_input_to_embed_is_one_sentence(store: Store, tmp_path: Path) -> None:
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


def test_an_eraser_learns_from_them_when_asked(store: Store, model: str, tmp_path: Path) -> None:
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


def test_as_many_as_the_memory_may_hold(store: Store, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    score(store)
    size = picture(90, is_red=True).width * picture(90, is_red=True).height * 3
    monkeypatch.setattr("hfi.jobs.erase.MAX_UNJUDGED_BYTES", 3 * size + 1)
    figures = erase(store, model, unjudged="by_score").figures
    assert (figures["unjudged_erased"], figures["unjudged_retained"]) == (3, 3)


def test_what_rests_on_the_model_alone_is_not_made_again(store: Store, model: str) -> None:
    score(store)
    first = erase(store, model).run
    add_pictures(store, range(70, 72))
    score(store)
    assert erase(store, model).run.id == first.id
    before = erase(store, model, unjudged="by_score")
    add_pictures(store, range(72, 74))
    score(store)
    after = erase(store, model, unjudged="by_score")
    assert after.run.id != before.run.id
    assert after.figures["unjudged_erased"] == before.figures["unjudged_erased"] + 1


@pytest.mark.parametrize(
    ("settings", "counts"),
    [({"retain_text": "a cat"}, (4, 0)), ({"targets": "text", "text": "gun"}, (4, 4))],
    ids=["retain_text", "text"],
)
def test_what_is_counted_is_what_was_learned_from(
    store: Store, model: str, settings: dict[str, str], counts: tuple[int, int]
) -> None:
    score(store)
    figures = erase(store, model, unjudged="by_score", **settings).figures
    assert (figures["unjudged_erased"], figures["unjudged_retained"]) == counts


def test_pictures_that_came_after_the_score_model_are_left_out(store: Store, model: str) -> None:
    score(store)
    add_pictures(store, range(60, 64))
    assert erase(store, model, unjudged="by_score").figures["unjudged_erased"] == 4


def test_without_such_pictures_the_sentence_says_what_to_do(store: Store, model: str) -> None:
    judge(store)
    score(store)
    with pytest.raises(NotFoundError, match="no scored picture that nobody judged: run `hfi score` again"):
        erase(store, model, unjudged="by_score")


def test_pictures_of_another_size_than_what_is_sampled_are_refused(model: str, tmp_path: Path) -> None:
    with Store.open(tmp_path / "large") as large:
        ensure_project(large, PROJECT)
        large.add_annotator("ann")
        shas = [large.add_image(Image.new("RGB", (64, 64), (200 * (n % 2), n, 0))).sha256 for n in range(8)]
        large.add_items(PROJECT, [ItemInput((sha,), f"a {'gun' if n % 2 else 'cat'}") for n, sha in enumerate(shas)])
        judge(large)
        score(large)
        with pytest.raises(InvalidInputError, match=r"are 64 × 64 px, but prompts to retain .* own 32 × 32 px"):
            erase(large, model, retain_text="a cat")
        assert erase(large, model).figures["retained"] == 4
