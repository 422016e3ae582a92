"""Named sets of configurations; each function's text states what it costs and what to expect. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from hfi.config import EraseConfig, EvaluateConfig, GenerateConfig, InvertConfig, ScoreConfig, SimulateConfig


@dataclass(frozen=True)
class LoopRecipe:
    """Configurations of every stage of the loop, and how many pictures are judged."""

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


def demo_recipe() -> LoopRecipe:
    """The demo: eight weapons, three simulated annotators with 10 % wrong answers, the embedded model.

    Cost: 18 minutes on two busy cores, 1.2 GiB; not measured on quiet ones. Results are in docs/LOG.md.
    """
    sampler = {"num_inference_steps": 12, "guidance_scale": 3.0, "batch_size": 32}
    return LoopRecipe(
        group="weapon",
        num_concept_images=144,
        num_other_images=112,
        generate=GenerateConfig(**sampler),
        simulate=SimulateConfig(concept="weapon", num_annotators=3, error_rate=0.1),
        score=ScoreConfig(),
        invert=InvertConfig(placeholder="<weapon>", num_train_steps=60),
        erase=EraseConfig(targets="both", num_train_steps=240, allow_weak_tokens=True),
        contribution_steps=60,
        evaluate=EvaluateConfig(**sampler, suite="mini-weapons", num_concept_images=200, num_other_images=200),
        contribution_evaluate=EvaluateConfig(
            **sampler, suite="mini-weapons", num_concept_images=48, num_other_images=48
        ),
    )


def toy_recipe(model: str) -> LoopRecipe:
    """The same stages at toy size, for tests: a few pictures, a few steps; its numbers mean nothing.

    Cost: under a minute on one core.
    """
    sampler = {"num_inference_steps": 4, "guidance_scale": 3.0, "batch_size": 16}
    evaluate = EvaluateConfig(**sampler, model=model, suite="mini-weapons", num_concept_images=8, num_other_images=8)
    return LoopRecipe(
        group="weapon",
        num_concept_images=16,
        num_other_images=16,
        generate=GenerateConfig(**sampler, model=model),
        simulate=SimulateConfig(),
        score=ScoreConfig(max_epochs=5),
        invert=InvertConfig(model=model, num_train_steps=3, num_concepts=2, batch_size=2, placeholder="<weapon>"),
        erase=EraseConfig(
            model=model, allow_weak_tokens=True, num_train_steps=3, batch_size=2, checkpoint_every_n_steps=2
        ),
        contribution_steps=2,
        evaluate=evaluate,
        contribution_evaluate=evaluate.model_copy(update={"num_concept_images": 4, "num_other_images": 4}),
    )
