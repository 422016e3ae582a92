"""Properties that hold for whatever people type and however they rank."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import JudgmentInput, Store
from storage.errors import HFIError, InvalidInputError
from storage.export import export_snapshot
from storage.import_any import import_path
from storage.preference import ranking_to_pairs
from storage.records import OTHER_ANSWERS, SUBSTANTIVE_ANSWERS, Assignment, GenerationParams, canonical_json
from storage.snapshot import create_snapshot
from storage.validate import check_name, check_text
from tests.storage.builders import build_flag_store, build_pair_store, judge_all, new_uuid

QUICK = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
rankings = st.lists(st.integers(1, 9), min_size=2, max_size=9)
texts = st.text(max_size=60)


@given(rankings)
@QUICK
def test_ranking_gives_each_untied_pair_once_and_in_order(ranks: list[int]) -> None:
    pairs = ranking_to_pairs(ranks)
    assert all(ranks[chosen] < ranks[rejected] for chosen, rejected in pairs)
    expected = {(a, b) for a in range(len(ranks)) for b in range(len(ranks)) if ranks[a] < ranks[b]}
    assert set(pairs) == expected
    assert len(pairs) == len(expected)


@given(rankings)
@QUICK
def test_reversed_ranking_mirrors_the_pairs(ranks: list[int]) -> None:
    mirrored = ranking_to_pairs([10 - rank for rank in ranks])
    assert {(b, a) for a, b in mirrored} == set(ranking_to_pairs(ranks))


@given(texts)
@QUICK
def test_cleaned_text_is_stable_and_has_no_hidden_characters(text: str) -> None:
    cleaned = check_text(text, "prompt")
    assert check_text(cleaned, "prompt") == cleaned
    assert "\u202e" not in cleaned
    assert "\x00" not in cleaned


@given(texts)
@QUICK
def test_names_are_accepted_or_refused_with_a_reason(name: str) -> None:
    try:
        assert check_name(name, "name") == name
    except InvalidInputError as error:
        assert "name" in str(error)
    except AssertionError:
        assert check_name(name, "name").casefold() is not None


@given(st.dictionaries(texts, st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts)))
@QUICK
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    assert canonical_json(value) == canonical_json(dict(reversed(list(value.items()))))


_FOLDER = tempfile.TemporaryDirectory()
_STORE: list[Store] = []


def shared_store() -> Store:
    """One store for all examples: each adds its own rows."""
    if not _STORE:
        _STORE.append(build_flag_store(Path(_FOLDER.name) / "store", 2))
        _STORE[0].add_annotator("importer")
    return _STORE[0]


@given(
    answer=st.sampled_from(["yes", "no", "unsure", "skip", "broken"]),
    categories=st.lists(st.sampled_from(["gun", "knife"]), max_size=2, unique=True),
    note=texts,
    reason=texts,
    elapsed_ms=st.integers(0, 86_400_000),
    revealed_ms=st.integers(0, 86_400_000),
    judged_at_us=st.integers(1, 2**52),
)
@QUICK
def test_judgment_record_is_what_was_sent(
    answer: str, categories: list[str], note: str, reason: str, elapsed_ms: int, revealed_ms: int, judged_at_us: int
) -> None:
    store = shared_store()
    kept = tuple(categories) if answer == "yes" else ()
    sent = JudgmentInput(
        new_uuid(), "importer", answer, item_id=1, categories=kept, note=note, reason=reason, elapsed_ms=elapsed_ms,
        revealed_ms=revealed_ms, judged_at_us=judged_at_us,
    )  # fmt: skip
    record = store.submit_judgments([sent], is_import=True)[0]
    assert record == store.get_judgment(sent.uuid)
    names = ("uuid", "annotator", "answer", "item_id", "note", "reason", "elapsed_ms", "revealed_ms", "judged_at_us")
    assert all(getattr(record, name) == getattr(sent, name) for name in names)
    assert record.categories == tuple(sorted(kept))


@given(kind=st.sampled_from(["flag", "score", "pair", "ranking"]), n_images=st.integers(2, 9), seed=st.integers(0, 999))
@settings(QUICK, max_examples=8)
def test_export_comes_home_the_same(kind: str, n_images: int, seed: int) -> None:
    """Export, import and export again give the same bytes, whatever was answered."""
    size = {"flag": 1, "score": 1, "pair": 2}.get(kind, n_images)
    chooser = random.Random(seed)

    def answer(lease: Assignment, name: str) -> JudgmentInput:
        word = chooser.choice(sorted(SUBSTANTIVE_ANSWERS[kind] | OTHER_ANSWERS))
        content: dict[str, Any] = {"scored": {"score": chooser.randint(1, 5)}}.get(word, {})
        if word == "ranked":
            content = {"ranks": tuple(chooser.randint(1, size) for _ in range(size))}
        return JudgmentInput(new_uuid(chooser), name, word, lease.id, elapsed_ms=chooser.randint(0, 9999), **content)

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with build_pair_store(root / "store", kind, 3, size) as store, Store.open(root / "other") as other:
            judge_all(store, "likes", answer=answer)
            first = export_snapshot(store, create_snapshot(store, "likes").hash, root / "one")
            again = export_snapshot(other, import_path(other, root / "one").snapshot, root / "two")
        assert again["configs"] == first["configs"]


@given(
    prompt=texts,
    seed=st.integers(0, 2**63 - 1),
    guidance_scale=st.floats(0, 30, allow_nan=False),
    extra=st.dictionaries(texts, st.integers()),
)
@QUICK
def test_generation_record_is_what_was_sent(
    prompt: str, seed: int, guidance_scale: float, extra: dict[str, int]
) -> None:
    store = shared_store()
    params = GenerationParams(prompt, seed, guidance_scale=guidance_scale, extra=extra, width=8, height=8)
    record = store.add_generation("weapons", store.list_images()[0].sha256, params)
    assert record.params == params
    assert store.find_generation("weapons", params) == record


@given(st.text(max_size=80), st.text(max_size=80))
@QUICK
def test_whatever_is_asked_for_gets_an_answer_or_our_own_error(name: str, other: str) -> None:
    store = shared_store()
    for call in (store.get_project, store.get_annotator, store.get_image, store.get_judgment, store.get_run):
        try:
            call(name)
        except HFIError as error:
            assert len(str(error)) > 20
    try:
        store.claim(name, other)
    except HFIError as error:
        assert str(error)
