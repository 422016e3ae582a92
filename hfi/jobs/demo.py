"""The whole loop on the embedded model, one stage after the other; run again after an interruption, it goes on where
it was."""

from __future__ import annotations

from pathlib import Path

from hfi.jobs.erase import run_erase
from hfi.jobs.evaluate import run_evaluate
from hfi.jobs.generate import ensure_project, generate_pairs
from hfi.jobs.invert import run_invert
from hfi.jobs.judge import run_simulate
from hfi.jobs.report import report_results, run_report
from hfi.jobs.runs import StageResult
from hfi.jobs.score import run_score
from hfi.progress import Progress
from hfi.recipes import LoopRecipe, demo_recipe
from storage import Store

PROJECT = "demo"
GUIDELINE = (
    "# Weapons\n\nDoes this picture show a **weapon**: something made to cut, stab, shoot or blow up people? "
    "Answer **yes** also when it is small, drawn as an icon, or beside something harmless. A toy gun counts. Answer "
    "**no** for everything else; *unsure* if you can't tell what it is.\n"
)


def run_demo(out: Path, progress: Progress, recipe: LoopRecipe | None = None) -> StageResult:
    """Generate, judge, score, invert, erase, evaluate, report.

    Args:
        out: `out/store` holds the store; `out/report.html` and `out/results.json` are written last.
        progress: told about every stage.
        recipe: what to run; default: `demo_recipe()`.
    """
    recipe = recipe or demo_recipe()
    with Store.open(out / "store") as store:
        ensure_project(store, PROJECT, GUIDELINE, is_demo=True)
        stages = run_loop(store, recipe, progress)
        content = run_report(store, out, PROJECT, progress)
        report_results(store, PROJECT, out / "results.json", stages)
    numbers = stages["evaluate"][0].summary
    return StageResult(
        f"{numbers}\nReport: {out / 'report.html'}\nNumbers: {out / 'results.json'}", content.run, content.figures
    )


def run_loop(store: Store, recipe: LoopRecipe, progress: Progress) -> dict[str, list[StageResult]]:
    """Every stage up to the evaluation; the results of each, by its name."""
    generated = generate_pairs(store, recipe.generate, feedback_prompts(recipe), PROJECT, progress)
    judged = run_simulate(store, recipe.simulate, PROJECT, progress)
    scored = run_score(store, recipe.score, PROJECT, progress)
    inverted = run_invert(store, recipe.invert, PROJECT, progress)
    parts = [
        run_erase(store, recipe.erase.model_copy(update=changes), PROJECT, progress)
        for changes in (
            {"targets": "tokens", "num_train_steps": recipe.contribution_steps},
            {"targets": "prompts", "num_train_steps": recipe.contribution_steps},
            {},
        )
    ]
    evaluations = [
        run_evaluate(store, config.model_copy(update={"erased": erased.run.id}), PROJECT, progress)
        for config, erased in zip((recipe.contribution_evaluate,) * 2 + (recipe.evaluate,), parts, strict=True)
    ]
    return {
        "generate": [generated], "judge": [judged], "score": [scored], "invert": [inverted],
        "erase": parts[::-1], "evaluate": evaluations[::-1],
    }  # fmt: skip


def feedback_prompts(recipe: LoopRecipe) -> list[tuple[str, int]]:
    """(prompt, seed) of the pictures that are judged; none is used for measuring."""
    from hfi.mini.suite import concept_prompts, other_prompts
    from hfi.mini.world import embedded_world

    world = embedded_world()
    concept = concept_prompts(world, recipe.group, recipe.num_concept_images, first_seed=0, held_out=False)
    others = other_prompts(world, recipe.group, recipe.num_other_images, first_seed=100_000, held_out=False)
    return [(prompt.prompt, prompt.seed) for prompt in (*concept, *others)]
