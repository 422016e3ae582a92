"""Named sets of configurations; each function's text states what it costs and what to expect. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from hfi.config import (
    EraseConfig,
    EraseMethod,
    EvaluateConfig,
    GenerateConfig,
    InvertConfig,
    ScoreConfig,
    SimulateConfig,
)
from hfi.mini.concepts import style_of, suite_of_concept


@dataclass(frozen=True)
class LoopRecipe:
    """Configurations of every stage of the loop, and how many pictures are judged.

    `group` is the concept: a group of the embedded world (`weapon`), whose pictures are flagged, or one of its styles
    (`style-cartoon`), whose pictures are ranked.
    """

    group: str
    num_concept_images: int
    num_other_images: int
    generate: GenerateConfig
    simulate: SimulateConfig
    score: ScoreConfig
    invert: InvertConfig
    erase: EraseConfig
    contribution_steps: int
    evaluate: EvaluateConfig
    contribution_evaluate: EvaluateConfig


def demo_recipe(concept: str = "weapon") -> LoopRecipe:
    """The demo: eight weapons, three simulated annotators with 10 % wrong answers, the embedded model.

    Cost: 3 to 8 minutes on two cores, 1.3 GiB (2 to 3 more with the set-up). Results are in docs/LOG.md.

    Args:
        concept: another group of the embedded world, or one of its styles; tuned for `weapon` alone.

    Raises:
        ConfigError: the embedded world has no such concept.
    """
    suite = suite_of_concept(concept)
    # a style has one side, which only the words for it should stand for, not what is drawn in it
    tokens = {"templates": "prompts", "num_concepts": 1, "batch_size": 24} if style_of(concept) else {}
    sampler = {"sampler": "dpm-solver++", "num_inference_steps": 8, "guidance_scale": 3.0, "batch_size": 32}
    return LoopRecipe(
        group=concept,
        num_concept_images=144,
        num_other_images=280,
        generate=GenerateConfig(**sampler),
        simulate=SimulateConfig(concept=concept, num_annotators=3, error_rate=0.1),
        score=ScoreConfig(),
        invert=InvertConfig(placeholder=f"<{concept}>", num_train_steps=50, **tokens),
        erase=EraseConfig(
            targets="both",
            anchor="swap",
            retain_weight=24.0,
            negative_guidance=3.0,
            trainable="full",
            num_train_steps=200,
            batch_size=6,
            retain_batch_size=18,
            bank_batches=32,
            learning_rate=5e-5,
            allow_weak_tokens=True,
        ),
        contribution_steps=20,
        evaluate=EvaluateConfig(**sampler, suite=suite, num_concept_images=200, num_other_images=200),
        contribution_evaluate=EvaluateConfig(**sampler, suite=suite, num_concept_images=24, num_other_images=24),
    )


def thorough_erase() -> EraseConfig:
    """The demo's eraser with more time: twice the points a step, three times the steps, pictures that nobody judged.

    The project must have such pictures, scored (`hfi mini generate`, `hfi score`). Chosen on prompts that are not
    reported (docs/LOG.md).

    Cost: 12 minutes on one core, 1.5 GiB.
    """
    changes = {"unjudged": "by_score", "num_train_steps": 600, "batch_size": 12, "retain_batch_size": 36}
    return EraseConfig.model_validate(
        demo_recipe().erase.model_dump(exclude_unset=True) | changes | {"retain_weight": 32.0}
    )


def toy_recipe(model: str) -> LoopRecipe:
    """The same stages at toy size, for tests: a few pictures, a few steps; its numbers mean nothing.

    Cost: under a minute on one core.
    """
    sampler = {"num_inference_steps": 4, "guidance_scale": 3.0, "batch_size": 16}
    evaluate = EvaluateConfig(**sampler, model=model, suite="mini-weapons", num_concept_images=4, num_other_images=4)
    return LoopRecipe(
        group="weapon",
        num_concept_images=8,
        num_other_images=8,
        generate=GenerateConfig(**sampler, model=model),
        simulate=SimulateConfig(),
        score=ScoreConfig(max_epochs=5),
        invert=InvertConfig(model=model, num_train_steps=3, num_concepts=2, batch_size=2, placeholder="<weapon>"),
        erase=EraseConfig(
            model=model,
            allow_weak_tokens=True,
            num_train_steps=3,
            batch_size=2,
            checkpoint_every_n_steps=2,
            bank_batches=2,
        ),
        contribution_steps=2,
        evaluate=evaluate,
        contribution_evaluate=evaluate.model_copy(update={"num_concept_images": 2, "num_other_images": 2}),
    )


def published_erase(method: EraseMethod) -> EraseConfig:
    """An eraser with the constants of its publication, and without our bank, retain term and noised pictures.

    Cost: made for Stable Diffusion 1.4 on a GPU (sdd: 1,500 rollouts; robust: 9,000 steps of inversion); not measured
    here. What to expect is in the papers and depends on their protocols. For `abo` no constants are published: ours.
    """
    plain = {"latents": "rollout", "batch_size": 1, "retain_weight": 0.0, "bank_batches": 1, "bank_passes": 1}
    esd = {"num_train_steps": 200, "learning_rate": 5e-5, "negative_guidance": 1.0}
    constants: dict[str, dict[str, object]] = {
        "sdd": {
            **plain, "sdd_prompts": "sample_one", "sdd_target": "student", "negative_guidance": 0.0,
            "num_train_steps": 1500, "learning_rate": 1e-5, "ema_decay": 0.999,
        },
        "esd": plain | esd,
        "abo": {**plain, "num_train_steps": 1000, "learning_rate": 1e-5, "negative_guidance": 0.0},
        "closed_form": {"closed_form_states": "tail", "closed_form_rounds": 3, "closed_form_regularization": 0.1},
        "robust": plain | esd | {"robust_method": "esd", "robust_rounds": 4, "robust_invert_steps": 3000},
    }  # fmt: skip
    return EraseConfig.model_validate({"method": method, "anchor": "empty"} | constants[method])
