"""Projects and set-up: cards, a new project, guidelines, settings, uploads, generating, importing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from storage import Store
from tests.ui.page_visits import SCRIPT, build_visited_store, judge, refusal, sentence, visit
from ui.pages.projects import show_projects
from ui.pages.setup import (
    create_project,
    open_setup,
    preview_guideline,
    save_guideline,
    save_settings,
    show_setup,
    split_lines,
)
from ui.pages.setup_pictures import (
    add_uploads,
    propose_per_item,
    show_command,
    show_pictures,
    submit_generating,
    submit_import,
)
from ui.settings import UiSettings


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with build_visited_store(tmp_path / "store") as opened:
        yield opened


def test_home_says_what_to_do_when_there_is_nothing(tmp_path: Path) -> None:
    with Store.open(tmp_path / "new") as empty:
        for name, role in (("boss", "owner"), ("ann", "annotator")):
            empty.add_annotator(name, role=role)
        assert 'href="/setup"' in show_projects(visit(empty, "owner"))
        told = show_projects(visit(empty, "annotator"))
        assert "nothing to judge yet" in told and "/setup" not in told


def test_home_shows_each_project_with_its_progress(store: Store) -> None:
    store.create_project("faces and more", kind="pair", is_sensitive=True)
    judge(store)
    cards = show_projects(visit(store, "owner"))
    assert 'href="/label/weapons"' in cards and cards.count("/thumb/") == 6
    assert "of 12 items done" in cards and "24 judgments" in cards
    assert 'href="/setup?project=faces%20and%20more&amp;step=pictures"' in cards  # has no pictures yet
    assert 'href="/label/faces%20and%20more"' not in cards
    annotator = show_projects(visit(store, "annotator"))
    assert "12 of them yours" in annotator and "/quality" not in annotator and "/setup" not in annotator


def test_sensitive_pictures_are_covered_at_home(tmp_path: Path) -> None:
    with build_visited_store(tmp_path / "store", is_sensitive=True) as sensitive:
        assert 'class="strip covered"' in show_projects(visit(sensitive))
        assert "covered" in show_pictures(visit(sensitive), "weapons")


NEW = ("faces", "flag", "gun\n\n knife \ngun", 3.0, 4.0, True, 0.1, 0.05, "Is it **one**?")


def test_create_project_makes_it_as_asked(store: Store) -> None:
    said = create_project(visit(store, "researcher"), *NEW)
    project = store.get_project("faces")
    assert said.values == ("faces",) and "add its pictures" in sentence(said)
    assert (project.kind, project.categories, project.annotators_per_item) == ("flag", ("gun", "knife"), 3)
    assert project.is_sensitive and project.guideline == "Is it **one**?"
    create_project(visit(store), "order", "ranking", "", 2.0, 5.0, False, 0.0, 0.0, "")
    assert store.get_care("order").rank_size == 5


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (0, SCRIPT, "project name"),
        (0, "weapons", "Choose another name"),
        (0, "", "project name"),
        (1, "vote", "project kind"),
        (2, "a/b", "category"),
        (3, 0.0, "annotators per item"),
        (3, None, "whole number"),
        (3, 2.5, "whole number"),
        (6, 2.0, "gold"),
    ],
)
def test_create_project_names_the_rule_it_refuses_by(store: Store, place: int, value: object, named: str) -> None:
    values = list(NEW)
    values[place] = value  # type: ignore[call-overload]
    before = len(store.list_projects())
    assert named in refusal(create_project, visit(store), *values)
    assert len(store.list_projects()) == before


def test_create_project_makes_nothing_when_a_later_setting_is_refused(store: Store) -> None:
    assert "ranking" in refusal(create_project, visit(store), "order", "ranking", "", 2.0, 99.0, False, 0.0, 0.0, "")
    assert "order" not in [project.name for project in store.list_projects()]


def test_preview_shows_markdown_and_runs_nothing(store: Store) -> None:
    shown = preview_guideline(visit(store), f"**bold** {SCRIPT} [a](javascript:alert(1)) ![b](http://x.example/b.png)")
    assert "<strong>bold</strong>" in shown
    assert "<script" not in shown and "<img" not in shown and 'href="javascript' not in shown
    assert "Nothing is written" in preview_guideline(visit(store), " ")


def test_save_guideline_adds_a_version_that_later_judgments_name(store: Store) -> None:
    said = save_guideline(visit(store), "weapons", "Now with bows.")
    assert "version 2" in sentence(said) and "Now with bows." in said.values[1]
    assert "Nothing has changed" in sentence(save_guideline(visit(store), "weapons", "Now with bows."))
    assert [version for version, _ in store.list_guidelines("weapons")] == [1, 2]
    assert "project" in refusal(save_guideline, visit(store), "nowhere", "text")


def test_settings_are_shown_as_they_are_kept(store: Store) -> None:
    said = save_settings(visit(store), "weapons", "bow", False, 20.0, 90.0, 300.0, "Ready?")
    assert "bow" in sentence(said) and store.get_project("weapons").categories == ("gun", "knife", "bow")
    _, text, versions, *settings, _ = show_setup(visit(store), "weapons")
    assert settings == [False, 20, 90, 300, "Ready?"] and text == "Is it a **weapon**?" and "Version 1" in versions
    assert "break" in refusal(save_settings, visit(store), "weapons", "", True, 0.0, 90.0, 300.0, "")


def test_open_setup_goes_where_the_address_says(store: Store) -> None:
    tab, project, _ = open_setup(visit(store, project="weapons", step="pictures"))
    assert tab["selected"] == "pictures" and project["value"] == "weapons"
    assert open_setup(visit(store))[0]["selected"] == "new"


def test_split_lines_keeps_each_once() -> None:
    assert split_lines(" a \n\nb\na") == ["a", "b"]


# --- pictures ----------------------------------------------------------------------------------------------------


def write_pictures(folder: Path, n: int) -> list[str]:
    paths = [folder / f"picture {number}.png" for number in range(n)]
    for number, path in enumerate(paths):
        Image.new("RGB", (9, 9), (number, 99, 7)).save(path)
    return [str(path) for path in paths]


def test_add_uploads_stores_and_queues_and_lists_what_it_refuses(store: Store, tmp_path: Path) -> None:
    bad = tmp_path / "<img src=x onerror=alert(1)>.png"
    bad.write_bytes(b"no picture")
    said = add_uploads(visit(store), "weapons", [*write_pictures(tmp_path, 3), str(bad)], "a toy", 1.0)
    assert "3 pictures stored, 3 new items" in sentence(said) and "1 refused" in sentence(said)
    assert "&lt;img" in said.values[2] and "<img" not in said.values[2]
    assert len(store.list_items("weapons")) == 15 and store.list_items("weapons")[-1].prompt == "a toy"
    again = add_uploads(visit(store), "weapons", write_pictures(tmp_path, 3), "a toy", 1.0)
    assert "0 new items" in sentence(again)


def test_add_uploads_groups_pictures_for_pairs(store: Store, tmp_path: Path) -> None:
    store.create_project("faces", kind="pair")
    assert propose_per_item(visit(store), "faces") == 2
    said = add_uploads(visit(store), "faces", write_pictures(tmp_path, 5), "", 2.0)
    assert "2 new items" in sentence(said) and "1 left over" in sentence(said)
    assert "has 2 pictures" in refusal(add_uploads, visit(store), "faces", write_pictures(tmp_path, 2), "", 3.0)
    assert "Choose 1 to" in refusal(add_uploads, visit(store), "faces", None, "", 2.0)


GENERATE = ("weapons", "a sword\na bow", "0-1", "mini", 4, 3.0)


def test_generating_is_handed_over_to_the_queue_once(store: Store) -> None:
    here = visit(store)
    said = submit_generating(here, *GENERATE)
    assert "4 pictures" in sentence(said) and "waiting" in said.values[0]
    assert "already" in sentence(submit_generating(here, *GENERATE))
    [job] = here.queue.list_jobs()
    request = here.queue.get_job(job.id).request
    assert job.user == "boss" and request is not None and request["prompts"] == ["a sword", "a bow"]
    here.queue.close()


def test_the_command_shown_is_one_that_a_shell_reads_back(store: Store) -> None:
    shown = show_command(visit(store), "weapons", "it's a 'sword'; rm -rf /", "0-1", "mini", 4, 3.0)
    assert "--seeds 0-1" in shown and "--num-inference-steps 4" in shown
    assert "&#39;" in shown and "; rm -rf /&#39;" in shown  # inside one quoted word


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (0, "nowhere", "project"),
        (1, "", "prompt"),
        (2, "x", "seeds"),
        (4, 0, "num_inference_steps"),
        (5, 0.0, "guidance"),
    ],
)
def test_generating_names_what_it_refuses(store: Store, place: int, value: object, named: str) -> None:
    values = list(GENERATE)
    values[place] = value  # type: ignore[call-overload]
    assert named in refusal(submit_generating, visit(store), *values)


def test_importing_stays_in_the_folders_that_are_allowed(store: Store, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    (allowed / "pictures").mkdir(parents=True)
    write_pictures(allowed / "pictures", 2)
    settings = UiSettings(import_folders=(str(allowed),))
    for path in ("/etc", str(allowed / ".." / "store"), "", str(tmp_path)):
        assert "may be imported from" in refusal(
            submit_import, visit(store, settings=settings), "weapons", path, "", False
        )
    inside = str(allowed / "pictures")
    assert "may be imported from" in refusal(submit_import, visit(store), "weapons", inside, "", False)
    here = visit(store, settings=settings)
    assert "no file or folder" in refusal(submit_import, here, "weapons", f"{inside}/no", "", False)
    assert "not pairs" in refusal(submit_import, here, "weapons", inside, "image", False)
    assert sentence(submit_import(here, "weapons", inside, "image=img", True)) == "Handed over."
    here.queue.close()
