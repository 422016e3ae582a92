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
from hfi.mini.concepts import style_of, suite_of_concept, words_of_concept
from hfi.mini.suite import concept_prompts, other_prompts, other_style_prompts, style_prompts
from hfi.mini.world import embedded_world
from hfi.progress import Progress
from hfi.recipes import LoopRecipe, demo_recipe
from storage import Store

PROJECT = "demo"
OTHERS_AFTER = 100_000  # seeds between the first prompt of the concept and the first of the others
WEAPON_GUIDELINE = (
    "# Weapons\n\nDoes this picture show a **weapon**: something made to cut, stab, shoot or blow up people? "
    "Answer **yes** also when it is small, drawn as an icon, or beside something harmless. A toy gun counts. Answer "
    "**no** for everything else; *unsure* if you can't tell what it is.\n"
)
GROUP_GUIDELINE = (
    "# {title}\n\nDoes this picture show **{words}**? Answer **yes** also when it is small, drawn as an icon, or "
    "beside something else. Answer **no** for everything else; *unsure* if you can't tell what it is.\n"
)
STYLE_GUIDELINE = (
    "# {title}\n\nPut the pictures in order: first the one that looks most like **{words}**, whatever it shows. "
    "Pictures between which you see no difference may share a place.\n"
)


def run_demo(out: Path, progress: Progress, recipe: LoopRecipe | None = None) -> StageResult:
    """Generate, judge, score, invert, erase, evaluate, report.

    Args:
        out: `out/store` holds the store; `out/report.html` and `out/results.json` are written last.
        progress: told about every stage.
        recipe: what to run; default: `demo_recipe()`. A group is flagged, a style is ranked.

    Raises:
        ConfigError: the embedded world has no such concept.
    """
    recipe = recipe or demo_recipe()
    with Store.open(out / "store") as store:
        project = open_project(store, recipe.group)
        stages = run_loop(store, recipe, progress, project)
        content = run_report(store, out, project, progress)
        report_results(store, project, out / "results.json", stages)
    numbers = stages["evaluate"][0].summary
    return StageResult(
        f"{numbers}\nReport: {out / 'report.html'}\nNumbers: {out / 'results.json'}", content.run, content.figures
    )


def run_loop(store: Store, recipe: LoopRecipe, progress: Progress, project: str) -> dict[str, list[StageResult]]:
    """Every stage up to the evaluation; the results of each, by its name."""
    pairs = feedback_prompts(recipe.group, recipe.num_concept_images, recipe.num_other_images)
    generated = generate_pairs(store, recipe.generate, pairs, project, progress)
    judged = run_simulate(store, recipe.simulate, project, progress)
    scored = run_score(store, recipe.score, project, progress)
    inverted = run_invert(store, recipe.invert, project, progress)
    parts = [
        run_erase(store, recipe.erase.model_copy(update=changes), project, progress)
        for changes in (
            {"targets": "tokens", "num_train_steps": recipe.contribution_steps},
            {"targets": "prompts", "num_train_steps": recipe.contribution_steps},
            {},
        )
    ]
    evaluations = [
        run_evaluate(store, config.model_copy(update={"erased": erased.run.id}), project, progress)
        for config, erased in zip((recipe.contribution_evaluate,) * 2 + (recipe.evaluate,), parts, strict=True)
    ]
    return {
        "generate": [generated], "judge": [judged], "score": [scored], "invert": [inverted],
        "erase": parts[::-1], "evaluate": evaluations[::-1],
    }  # fmt: skip


def open_project(store: Store, concept: str) -> str:
    """The name of the demo's project about a concept, made if need be: a group is flagged, a style is ranked.

    Raises:
        ConfigError: the embedded world has no such concept.
    """
    suite_of_concept(concept, embedded_world())
    words = words_of_concept(concept)
    template = STYLE_GUIDELINE if style_of(concept) else GROUP_GUIDELINE
    guideline = template.format(title=words.many.capitalize(), words=words.shown)
    if concept == "weapon":
        guideline = WEAPON_GUIDELINE
    project = PROJECT if concept == "weapon" else f"{PROJECT}-{concept}"
    ensure_project(store, project, guideline, kind="ranking" if style_of(concept) else "flag", is_demo=True)
    return project


def feedback_prompts(
    concept: str, num_concept: int, num_others: int, *, first_seed: int = 0, pair_share: float = 0.25
) -> list[tuple[str, int]]:
    """(prompt, seed) of pictures to learn from; no protocol measures with these combinations or seeds.

    Args:
        concept: a group of the embedded world, or one of its styles (`style-cartoon`).
        num_concept: prompts that ask for it.
        num_others: prompts that do not.
        first_seed: seed of the first picture; the others' begin 100,000 later.
        pair_share: probability of a second object in a prompt, in 0..1.

    Raises:
        ConfigError: the embedded world has no such concept.
    """
    suite_of_concept(concept)
    style = style_of(concept)
    of_concept, of_others = (style_prompts, other_style_prompts) if style else (concept_prompts, other_prompts)
    world, name = embedded_world(), style or concept
    asked = of_concept(world, name, num_concept, first_seed=first_seed, held_out=False, pair_share=pair_share)
    others = of_others(
        world, name, num_others, first_seed=first_seed + OTHERS_AFTER, held_out=False, pair_share=pair_share
    )
    return [(prompt.prompt, prompt.seed) for prompt in (*asked, *others)]
