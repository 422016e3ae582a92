"""The table of all methods on a tiny model: every kind of row, several runs, attacks, and rows that fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from hfi.config import (
    AttackConfig,
    EraseConfig,
    EvaluateConfig,
    GenerateConfig,
    InvertConfig,
    ScoreConfig,
)
from hfi.errors import ConfigError, HFIError
from hfi.evaluate.detectors import Scores
from hfi.evaluate.protocol import DetectorSpec
from hfi.jobs import evaluate as evaluate_job
from hfi.jobs import stages
from hfi.jobs.own_process import erase_in_own_process
from hfi.jobs.results_table import ResultsPlan, all_methods, run_results
from hfi.jobs.steering import build_steering, flagged_words
from hfi.progress import QUIET
from storage import Store
from storage.records import Run
from tests.jobs.waiting import wait_until
from tests.test_loop import judge_by_prompt
from tests.tiny import save_pipeline

SAMPLER = {"num_inference_steps": 2, "batch_size": 8}
ERASE = {"num_train_steps": 2, "batch_size": 2, "allow_weak_tokens": True}


def erase_quickly(store: Store, config: EraseConfig) -> Run:
    """In this process, with few rounds."""
    if config.method == "robust":
        config = config.model_copy(update={"robust_rounds": 2, "robust_invert_steps": 1})
    return stages.run_erase(store, config, "p", QUIET).run


class Always:
    """Everything shows the concept, so that there is something to attack."""

    spec = DetectorSpec(
        name="opennsfw", package="test", package_version="1", weights_sha256="0" * 64, classes=("c",), threshold=0.5
    )

    def read(self, images: Any) -> list[Scores]:
        return [{"c": 1.0} for _ in images]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store whose project has a score model and a token, and its tiny model."""
    folder = tmp_path_factory.mktemp("results")
    model = str(save_pipeline(folder / "model"))
    with Store.open(folder / "store") as store:
        stages.run_generate(
            store, GenerateConfig(num_inference_steps=1, model=model), ["a cat", "a dog"], range(6), "p", QUIET
        )
        judge_by_prompt(store, "p", "cat")
        stages.run_score(store, ScoreConfig(max_epochs=2), "p", QUIET)
        config = InvertConfig(model=model, num_train_steps=1, num_concepts=1, batch_size=2, stopping="steps")
        stages.run_invert(store, config, "p", QUIET)
    (folder / "suite.json").write_text(json.dumps({"concept": ["a cat"], "others": ["a dog"]}))
    return folder, model


def configs(prepared: tuple[Path, str]) -> tuple[EraseConfig, EvaluateConfig, AttackConfig]:
    folder, model = prepared
    shared = {**SAMPLER, "model": model, "suite": str(folder / "suite.json")}
    return (
        EraseConfig(model=model, **ERASE),
        EvaluateConfig(**shared, num_concept_images=3, num_other_images=3),
        AttackConfig(**shared, attack="reinversion", num_images=2, num_train_steps=1),
    )


@pytest.mark.thorough
def test_every_method_is_erased_measured_and_attacked_and_runs_share_a_row(
    prepared: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_job, "load_named_detector", lambda *_: Always())
    erase, evaluate, attack = configs(prepared)
    with Store.open(prepared[0] / "store") as store:

        def results(plan: ResultsPlan, **options: Any) -> Any:
            return run_results(
                store, "p", tmp_path / "results.md", QUIET, erase=erase, evaluate=evaluate, plan=plan,
                erase_with=lambda config: erase_quickly(store, config), **options,
            )  # fmt: skip

        table, failures = results(ResultsPlan(all_methods(), ("tokens",)), attack=attack)
        assert failures == []
        names = [row.name.split(" (")[0] for row in table.rows]
        assert names[1:] == [f"{method}, tokens" for method in (*all_methods()[:-1], "sld medium")]
        columns = [name for name, _ in table.columns]
        cells = [dict(zip(columns, row.cells, strict=True)) for row in table.rows]
        assert cells[1]["seconds to make"].value > 0 and cells[1]["peak memory, MiB"].value > 0
        is_attacked = [found["attack: new word"].value is not None for found in cells]
        assert is_attacked == [False, *[True] * 5, False, False], "every eraser; nobody attacks steering"
        assert table.sentences[4].endswith("2 of the 7 were not attacked.")
        document = (tmp_path / "results.md").read_text()
        assert "who has the weights leaves them off" in document.replace("\n", " ") and "mean over runs" not in document

        plan = ResultsPlan(("sdd", "neg"), ("tokens", "text"), (0, 1), text="a bomb")
        table, failures = results(plan, attack=None)
        names = [row.name for row in table.rows]
        assert failures == [] and names[1:] == [
            "sdd, tokens (2 runs)", "neg, tokens", "sdd, text (2 runs)", "neg, text"
        ]  # fmt: skip
        assert table.rows[1].cells[0].n == 2 * 3 and table.rows[2].cells[0].n == 3
        assert "mean over runs" in (tmp_path / "results.md").read_text()
        num_runs = len(store.list_runs())
        assert results(plan, attack=None)[0] == table, "run again, it takes what is there"
        assert len(store.list_runs()) == num_runs


def test_a_row_that_fails_is_named_and_the_others_stand(prepared: tuple[Path, str], tmp_path: Path) -> None:
    erase, evaluate, _ = configs(prepared)
    erase = EraseConfig.model_validate(erase.model_dump(exclude_unset=True) | {"learning_rate": 1e30})
    with Store.open(prepared[0] / "store") as store:
        table, failures = run_results(
            store, "p", tmp_path / "results.md", QUIET, erase=erase, evaluate=evaluate, attack=None,
            plan=ResultsPlan(("sdd", "neg"), ("prompts",)),
            erase_with=lambda config: erase_quickly(store, config),
        )  # fmt: skip
        assert [row.name for row in table.rows] == ["original", "neg, prompts"]
        assert len(failures) == 1 and failures[0].startswith("sdd, prompts: ")
        assert f"- {failures[0]}" in (tmp_path / "results.md").read_text()


def test_steering_holds_back_what_an_eraser_would_take(prepared: tuple[Path, str]) -> None:
    config = GenerateConfig(model=prepared[1], sld_level="medium")
    with Store.open(prepared[0] / "store") as store:
        assert flagged_words(store, "p") == ["cat"]
        found = {
            targets: build_steering(store, "p", "sld", targets, "a bomb", config, 12)
            for targets in ("tokens", "prompts", "both", "text")
        }
        assert {targets: guard.text for targets, guard in found.items()} == {
            "tokens": "<concept>", "prompts": "cat", "both": "<concept> cat", "text": "a bomb",
        }  # fmt: skip
        assert found["text"].sld.warmup_steps == 2, "10 of 50 published steps"
        assert len(found["both"].tokens) == 1 and found["text"].tokens == ()


@pytest.mark.slow
def test_erase_in_own_process_is_the_same_erasure_and_its_failure_is_a_sentence(prepared: tuple[Path, str]) -> None:
    erase, _, _ = configs(prepared)
    with Store.open(prepared[0] / "store") as store:
        config = erase.model_copy(update={"targets": "prompts", "seed": 7})
        run = erase_in_own_process(store, config, "p", quiet=True)
        assert run.metrics["erase_peak_memory_mib"] > 0
        assert erase_in_own_process(store, config, "p") == run == stages.run_erase(store, config, "p", QUIET).run
        with pytest.raises(HFIError, match="erase"):
            erase_in_own_process(store, config.model_copy(update={"learning_rate": 1e30}), "p", quiet=True)


def test_who_is_killed_leaves_no_process_behind() -> None:
    """A training that went on alone would write the checkpoints of the next start."""
    words = (
        "import os, time; from hfi.jobs.own_process import own_process; pool = own_process(); "
        "print(pool.submit(os.getpid).result(), flush=True); pool.submit(time.sleep, 600).result()"
    )
    with subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
    wait_until(lambda: not child.is_running() or child.status() == "zombie", "death of the process", 10.0)


def test_a_method_may_have_targets_of_its_own() -> None:
    plan = ResultsPlan(("sdd", "sdd:text", "neg", "neg:tokens"), ("both",), (0, 1), text="a bomb")
    first = [("sdd", "both", 0), ("neg", "both", 0), ("sdd", "text", 0), ("neg", "tokens", 0)]
    assert list(plan.runs()) == [*first, ("sdd", "both", 1), ("sdd", "text", 1)]
    fewer = ResultsPlan(("sdd", "abo*2", "robust:text*1"), ("both",), (5, 6, 7), text="a bomb")
    assert list(fewer.runs()) == [
        ("sdd", "both", 5), ("abo", "both", 5), ("robust", "text", 5),
        ("sdd", "both", 6), ("abo", "both", 6),
        ("sdd", "both", 7),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"methods": ("magic",)}, "--methods has magic, but must be of sdd"),
        ({"targets": ("all",)}, "--targets has all, but must be of tokens"),
        ({"targets": ("text",)}, "--targets text needs words"),
        ({"methods": ("sdd:text",)}, "--targets text needs words"),
        ({"methods": ("sdd:",)}, "--targets has '', but must be of tokens"),
        ({"methods": ("sdd:all",)}, "--targets has all, but must be of tokens"),
    ],
)
def test_a_plan_that_nobody_can_follow_is_refused(plan: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ResultsPlan(**plan)
