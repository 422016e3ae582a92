"""Curves of feedback: planted embeddings for the order of judging, files for the plot and the document."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from hfi.config import EvaluateConfig, GenerateConfig, ScoreConfig, SimulateConfig
from hfi.errors import ConfigError, NotFoundError
from hfi.evaluate.line_plot import Curve, Point, plot_curve
from hfi.jobs import stages
from hfi.jobs.curves import (
    ORDERS,
    CurvePlan,
    _first_count,
    _keep,
    _write_document,
    areas_in_order,
    copy_pictures,
    measure_point,
    run_curves,
)
from hfi.progress import QUIET
from hfi.recipes import toy_recipe
from storage import Store
from tests.tiny import save_pipeline

CONFIG = ScoreConfig(num_members=2, hidden_dim=8, learning_rate=5e-3, max_epochs=15)


def planted(num_images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings whose first coordinate says whether a picture shows the concept."""
    rng = np.random.default_rng(seed)
    truth = rng.random(num_images) < 0.4
    x = rng.normal(size=(num_images, 8))
    x[:, 0] += 4 * truth
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), truth


def test_areas_in_order_grow_with_labels_and_repeat_themselves() -> None:
    (pool, labels), (test, truth) = planted(120, 0), planted(150, 1)
    groups = [str(row) for row in range(len(pool))]
    for order in ORDERS:
        areas = areas_in_order(pool, labels.astype(float), groups, test, truth, order, [12, 60, 120], 0, CONFIG)
        again = areas_in_order(pool, labels.astype(float), groups, test, truth, order, [12, 60, 120], 0, CONFIG)
        assert areas == again and len(areas) == 3 and areas[-1].estimate > 0.8
        assert all(area.n == 150 for area in areas)
    # whatever the order, the first pictures and, in the end, all pictures are the same
    ends = {
        order: areas_in_order(pool, labels.astype(float), groups, test, truth, order, [12, 60], 3, CONFIG)
        for order in ORDERS
    }
    assert len({areas[0].estimate for areas in ends.values()}) == 1
    assert ends[ORDERS[0]][1] != ends[ORDERS[1]][1], "another order judges other pictures"


def test_first_count_waits_for_both_answers() -> None:
    assert _first_count(np.array([0, 0, 1, 0, 1, 1, 0, 1.0]), 2) == 6
    assert _first_count(np.zeros(5), 2) == 5


def test_plot_and_document_show_every_point_with_its_interval(tmp_path: Path) -> None:
    points = (Point(0.0, 0.1, 0.05, 0.2), Point(0.4, 0.6, 0.5, 0.7))
    curve = Curve("A < B", "x", "y", {"one": points, "other & more": points[:1]}, is_x_share=True, notes=("note.",))
    root = ElementTree.fromstring(plot_curve(curve))
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    marks = [
        element
        for group in root.iter()
        if group.attrib.get("id", "").startswith("series-")
        for element in group.iter()
        if element.tag.endswith("use")
    ]
    assert len(marks) == 3 and {"A < B", "x", "y", "one", "other & more", "0 %", "40 %"} <= set(texts)
    heights = [float(mark.attrib["y"]) for mark in marks]
    assert heights[1] < heights[0], "more is higher"
    assert plot_curve(curve) == plot_curve(curve), "the same curve, the same file"
    _keep(tmp_path / "curves.md", "noise", curve, "hfi curve", ["noise 0.2, seed 0: none is flagged"])
    _write_document(tmp_path / "curves.md")
    document = (tmp_path / "curves.md").read_text()
    assert "| 40 % | 60.0 % [50.0, 70.0] | – | 1 |" in document and "- Note." in document
    assert "images/curve-noise.svg" in document and "- noise 0.2, seed 0: none is flagged" in document
    assert json.loads((tmp_path / "images" / "curve-noise.json").read_text())["command"] == "hfi curve"


@pytest.mark.parametrize(("suite", "concept"), [("mini-weapons", "weapon"), ("mini-style-flat", "style-flat")])
def test_people_object_to_what_is_measured(
    suite: str, concept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def stop(store: Store, config: SimulateConfig, *_: object) -> None:
        asked.append(config.concept)
        raise NotFoundError("far enough")

    monkeypatch.setattr("hfi.jobs.curves.run_simulate", stop)
    model = str(save_pipeline(tmp_path / "model"))
    with Store.open(tmp_path / "store") as store:
        stages.run_generate(store, GenerateConfig(num_inference_steps=1, model=model), ["a cat"], range(2), "p", QUIET)
        with pytest.raises(NotFoundError, match="far enough"):
            evaluate = EvaluateConfig(model=model, suite=suite)
            measure_point(store, "p", 0.1, 0, 0, toy_recipe(model).erase, evaluate, QUIET)
    assert asked == [concept]


def test_curve_of_labels_is_the_mean_over_seeds_and_says_where_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rates(before: float, after: float) -> dict[str, dict[str, float]]:
        return {"before": {"rate": before, "n": 100}, "after": {"rate": after, "n": 100}}

    def measured(store: object, project: str, noise: float, count: int, seed: int, *_: object) -> SimpleNamespace:
        if (count, seed) == (20, 1):
            raise NotFoundError("none is flagged")
        left = {20: 0.6, 50: 0.3}[count] + seed / 10
        figures = {"removal": rates(0.9, left), "others_accuracy": rates(0.8, 0.75)}
        return SimpleNamespace(figures=figures, pictures={"before": [], "after": []})

    monkeypatch.setattr("hfi.jobs.curves.measure_point", measured)
    plan = CurvePlan(("labels",), seeds=(0, 1), labels=(20, 50))
    with Store.open(tmp_path / "store") as store:
        (curve,), failures = run_curves(
            store, "p", tmp_path / "c.md", QUIET, plan=plan, erase=toy_recipe("mini").erase, evaluate=EvaluateConfig()
        )
    points = [(point.x, round(point.value, 6), point.num_runs) for point in curve.series["shows the concept"]]
    assert points == [(20.0, 0.6, 1), (50.0, 0.35, 2)]
    assert failures == ["labels 20, seed 1: none is flagged"]
    text = (tmp_path / "c.md").read_text()
    assert "- The original shows the concept in 90.0 % and draws 80.0 % of the others right." in text


def test_copy_pictures_takes_as_many_as_are_judged_and_never_more_than_there_are(tmp_path: Path) -> None:
    model = str(save_pipeline(tmp_path / "model"))
    with Store.open(tmp_path / "store") as store:
        config = GenerateConfig(num_inference_steps=1, model=model)
        stages.run_generate(store, config, ["a cat", "a dog"], range(3), "p", QUIET)
        for _ in range(2):  # again, it changes nothing
            copy_pictures(store, "p", "few", 4, 0, model)
        assert len(store.list_items("few")) == len(store.list_generations("few")) == 4
        copy_pictures(store, "p", "all", 0, 0, model)
        assert len(store.list_items("all")) == 6
        with pytest.raises(ConfigError, match="7 labels were asked for, but project 'p' has 6 pictures"):
            copy_pictures(store, "p", "more", 7, 0, model)
        recipe = toy_recipe(model)
        with pytest.raises(NotFoundError, match="hfi score"):
            run_curves(
                store, "p", tmp_path / "c.md", QUIET, plan=CurvePlan(("order",)), erase=recipe.erase,
                evaluate=EvaluateConfig(model=model),
            )  # fmt: skip
        with pytest.raises(ConfigError, match=r"suite 'own\.json' is of none: give --protocol"):
            run_curves(
                store, "p", tmp_path / "c.md", QUIET, plan=CurvePlan(("order", "noise")), erase=recipe.erase,
                evaluate=EvaluateConfig(model=model, suite="own.json"),
            )  # fmt: skip
    with pytest.raises(ConfigError, match="--kinds has all"):
        CurvePlan(("all",))
