"""Erasing and inverting against faithful references: ``python tests/benchmarks/bench_erase.py [erase inversion]``.

Prints one line of JSON for each repetition. Protocol: the embedded model, the group "weapon", the same threads for all;
every part runs in a process of its own, and its peak memory is taken before anything is measured; ours and the
reference take turns.

erase       ours until it is done; the reference until the independent judge finds as little of the concept on held-out
            prompts and seeds, or `--max-ratio` times our seconds are spent (then the ratio is a lower bound). Measuring
            is not counted. Damage is told beside it: accuracy on all other held-out prompts.
inversion   ours until it is done; the reference until its token's loss on one fixed batch of held-out noise is as low.

Ours is the demo's eraser (`hfi.recipes.demo_recipe`) by the flagged pictures' prompts, as many pictures as the demo's:
all weights, anchor `swap`, and a retain set without prompts that say the concept's words. It makes about a third of the
demo's steps (`--erase-steps 60`), so that the removal to be reached is one that the reference may reach within an hour.
The reference trains cross-attention with the group's words, batch 1, as published; at its published rate of 1e-5 it may
not get there at all, so give it a fair chance with ``--reference-learning-rate 1e-4`` too.

Expected duration on one core: two minutes for the material; ours one minute and two looks of one minute, the reference
up to 40 of our minutes and up to 16 looks; inversion up to 20: an hour or more for one repetition of both. A reference
that arrives sooner ends sooner.

``--tiny`` is a smoke run of a few steps whose numbers mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from reference_methods import inversion_steps, sdd_steps

GROUP = "weapon"
INVERSION: dict[str, Any] = {
    "learning_rate": 4e-3,
    "averaged_share": 0.5,
}  # half the steps of before, at twice the rate
NUM_PEOPLE, ERROR_RATE = 3, 0.1  # as the demo's


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is done."""

    num_pictures: int = 144  # of concept prompts
    num_others: int = 280
    num_measured: int = 128  # pictures of concept prompts, and as many others
    sampler: str = "dpm-solver++"
    sampler_steps: int = 8  # as the demo's
    erase_steps: int = 60
    erase_batch: int = 6  # and three times as many to retain, as the demo
    invert_steps: int = 40
    num_looks: int = 16  # at the reference, evenly spread over the seconds it may take
    max_ratio: float = 40.0
    reference_learning_rate: float = 1e-5


TINY = Size(16, 16, 4, "ddim", 4, 2, 2, 2, 2, 1.5)
NO_END = 10**6


# ---------------------------------------- the material


def make_material(size: Size, folder: Path) -> None:
    """Pictures as the demo's, sorted into flagged ones and others by simulated people; none is ever measured on."""
    import numpy as np

    from hfi.config import SamplerConfig
    from hfi.generate import GenerationRequest, generate
    from hfi.mini.detect import load_detector
    from hfi.mini.suite import concept_prompts, other_prompts
    from hfi.pipelines import load_pipeline

    eye, pipeline = load_detector("eye"), load_pipeline("mini", "cpu")
    prompts = [
        *concept_prompts(eye.world, GROUP, size.num_pictures, first_seed=0, held_out=False),
        *other_prompts(eye.world, GROUP, size.num_others, first_seed=100_000, held_out=False),
    ]
    sampler = SamplerConfig(sampler=size.sampler, num_inference_steps=size.sampler_steps)
    images = [i for _, i in generate(pipeline, [GenerationRequest(p.prompt, p.seed) for p in prompts], sampler)]
    members = [eye.world.objects.index(name) for name in eye.world.in_group(GROUP)]
    shows = (eye.see(images).objects[:, members] >= 0.5).any(axis=1)
    errs = np.random.default_rng(0).random((NUM_PEOPLE, len(shows))) < ERROR_RATE
    flags = (shows ^ errs).sum(axis=0) > NUM_PEOPLE / 2
    for name, wanted in (("flagged", True), ("others", False)):
        rows = [row for row, flag in enumerate(flags) if flag == wanted]
        for number, row in enumerate(rows):
            images[row].save(folder / f"{name}-{number:04d}.png")
        (folder / f"{name}.json").write_text(json.dumps([prompts[row].prompt for row in rows]))


def load_material(folder: Path, name: str) -> tuple[list[Any], list[str]]:
    """Pictures and their prompts."""
    from PIL import Image

    files = sorted(folder.glob(f"{name}-*.png"))
    return [Image.open(file).convert("RGB") for file in files], json.loads((folder / f"{name}.json").read_text())


def measure(pipeline: Any, unet: Any, size: Size) -> dict[str, float]:
    """Share of concept pictures that show the group, and of other pictures on which all that was asked for is there."""
    import copy

    from hfi.config import SamplerConfig
    from hfi.generate import GenerationRequest, generate
    from hfi.mini.detect import load_detector
    from hfi.mini.suite import concept_prompts, other_prompts

    judge, changed = load_detector("judge"), copy.copy(pipeline)
    changed.unet = unet
    sampler = SamplerConfig(sampler=size.sampler, num_inference_steps=size.sampler_steps)
    members = [judge.world.objects.index(name) for name in judge.world.in_group(GROUP)]
    found = {}
    for name, make, first_seed in (("concept", concept_prompts, 1_000_000), ("others", other_prompts, 1_100_000)):
        prompts = make(judge.world, GROUP, size.num_measured, first_seed=first_seed, held_out=True)
        images = [i for _, i in generate(changed, [GenerationRequest(p.prompt, p.seed) for p in prompts], sampler)]
        objects = judge.see(images).objects >= 0.5
        if name == "concept":
            found[name] = float(objects[:, members].any(axis=1).mean())
        else:
            wanted = [[judge.world.objects.index(thing) for thing in p.objects] for p in prompts]
            found[name] = sum(bool(row[ids].all()) for row, ids in zip(objects, wanted, strict=True)) / len(prompts)
    return found


def token_loss(pipeline: Any, images: list[Any], row: Any) -> float:
    """Denoising loss of "a <token>" on one fixed batch: every picture, four noises each, never trained on."""
    import torch

    from hfi.inversion import ConceptToken, encode_prompts_with_tokens
    from hfi.pipelines import add_noise, encode_images, predict_noise

    generator = torch.Generator().manual_seed(987_654)
    latents = encode_images(pipeline, images).repeat(4, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=generator)
    timesteps = torch.randint(0, 1000, (len(latents),), generator=generator)
    embeds = encode_prompts_with_tokens(pipeline, ["a <bench>"], [ConceptToken("<bench>", row.reshape(1, -1))])
    with torch.no_grad():
        noisy = add_noise(pipeline, latents, noise, timesteps)
        prediction = predict_noise(pipeline, noisy, timesteps, embeds.expand(len(latents), -1, -1))
    return float((prediction - noise).square().mean())


# ---------------------------------------- the parts, each in a process of its own


@dataclasses.dataclass(frozen=True)
class Task:
    """What a part is given: how much, the pictures, what the reference has to reach, and a seed."""

    size: Size
    folder: Path
    goal: dict[str, float]
    seed: int


def run_erase_ours(task: Task) -> dict[str, Any]:
    """The demo's eraser by the flagged pictures' prompts; seconds include finding words, encoding and the banks."""
    from hfi.erase import Concept, erase
    from hfi.pipelines import load_pipeline
    from hfi.prompt_words import concept_words, says_any
    from hfi.recipes import demo_recipe

    size, pipeline = task.size, load_pipeline("mini", "cpu")
    (flagged, prompts), (others, kept) = (load_material(task.folder, name) for name in ("flagged", "others"))
    config = demo_recipe().erase.model_copy(
        update={
            "num_train_steps": size.erase_steps,
            "batch_size": size.erase_batch,
            "retain_batch_size": 3 * size.erase_batch,
            "seed": task.seed,
        }
    )
    started = time.monotonic()
    words = concept_words(prompts, kept)
    rows = [row for row, prompt in enumerate(kept) if config.retain_ambiguous or not says_any(prompt, words)]
    concept = Concept(
        prompts,
        images=flagged,
        retain_prompts=[kept[row] for row in rows],
        retain_images=[others[row] for row in rows],
    )
    result = erase(pipeline, concept, config)
    seconds, peak = time.monotonic() - started, peak_memory()
    before, after = (measure(pipeline, unet, size) for unet in (pipeline.unet, result.unet))
    return _outcome(seconds, peak, size.erase_steps, after, True) | {"before": before}


def run_erase_reference(task: Task) -> dict[str, Any]:
    """The reference with the group's words as concepts, until it shows as little as the goal."""
    from hfi.mini.detect import load_detector
    from hfi.mini.vocabulary import words_for
    from hfi.pipelines import load_pipeline

    pipeline, world = load_pipeline("mini", "cpu"), load_detector("judge").world
    concepts = [words_for(name)[0] for name in world.in_group(GROUP)]
    steps = sdd_steps(pipeline, concepts, NO_END, task.size.reference_learning_rate, task.seed)

    def look(teacher: Callable[[], Any]) -> tuple[bool, Any]:
        found = measure(pipeline, teacher(), task.size)
        return found["concept"] <= task.goal["concept"], found

    return _until(steps, look, task)


def run_inversion_ours(task: Task) -> dict[str, Any]:
    """Our inversion of the flagged pictures into one token."""
    from hfi.config import InvertConfig
    from hfi.inversion import invert
    from hfi.pipelines import load_pipeline

    pipeline, flagged = load_pipeline("mini", "cpu"), load_material(task.folder, "flagged")[0]
    config = InvertConfig(num_train_steps=task.size.invert_steps, initializer=GROUP, seed=task.seed, **INVERSION)
    started = time.monotonic()
    (token,) = invert(pipeline, flagged, [1.0] * len(flagged), config)
    seconds, peak = time.monotonic() - started, peak_memory()
    loss = token_loss(pipeline, flagged, token.learned_embeds)
    return _outcome(seconds, peak, token.card["num_steps_done"], {"loss": loss}, True)


def run_inversion_reference(task: Task) -> dict[str, Any]:
    """The reference, until its token's loss is as low as the goal."""
    from hfi.pipelines import load_pipeline

    pipeline, flagged = load_pipeline("mini", "cpu"), load_material(task.folder, "flagged")[0]
    steps = inversion_steps(pipeline, flagged, GROUP, NO_END, 5e-4, 4, task.seed)

    def look(row: Any) -> tuple[bool, Any]:
        loss = token_loss(pipeline, flagged, row)
        return loss <= task.goal["loss"], {"loss": loss}

    return _until(steps, look, task)


def _until(steps: Iterator[Any], look: Callable[[Any], tuple[bool, Any]], task: Task) -> dict[str, Any]:
    """Run steps until a look says that the goal is reached, or the time is over; looking is not counted."""
    limit = task.size.max_ratio * task.goal["seconds"]
    seconds, peak, done, num_looks = 0.0, 0.0, 0, 0
    while True:
        started = time.monotonic()
        state = next(steps)
        seconds += time.monotonic() - started
        done += 1
        if seconds < limit * (num_looks + 1) / task.size.num_looks:
            continue
        peak = peak or peak_memory()  # before anything is measured
        num_looks += 1
        is_reached, found = look(state)
        print(f"{done} steps, {seconds:.0f} of {limit:.0f} s: {found}", file=sys.stderr, flush=True)
        if is_reached or seconds >= limit:
            return _outcome(seconds, peak, done, found, is_reached)


def _outcome(seconds: float, peak: float, steps: int, after: Any, is_reached: bool) -> dict[str, Any]:
    return {
        "seconds": round(seconds, 2), "peak_memory_mib": round(peak, 1), "steps": steps, "after": after,
        "is_reached": is_reached,
    }  # fmt: skip


def peak_memory() -> float:
    """Highest resident memory of this process so far, in MiB."""
    from hfi.erase.training import peak_memory_mib

    return peak_memory_mib()


PARTS: dict[str, Callable[[Task], dict[str, Any]]] = {
    "erase-ours": run_erase_ours,
    "erase-reference": run_erase_reference,
    "inversion-ours": run_inversion_ours,
    "inversion-reference": run_inversion_reference,
}


# ---------------------------------------- the comparison


def in_own_process(part: str, task: Task) -> dict[str, Any]:
    """What a part gives."""
    command = [sys.executable, __file__, "--part", part, "--folder", str(task.folder), "--seed", str(task.seed)]
    command += ["--goal", json.dumps(task.goal), "--size", json.dumps(dataclasses.asdict(task.size))]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        raise SystemExit(f"{part} failed")
    return json.loads(run.stdout.splitlines()[-1])


def compare(name: str, task: Task) -> None:
    """Ours, then the reference: one line of JSON."""
    ours = in_own_process(f"{name}-ours", task)
    goal = dataclasses.replace(task, goal=ours["after"] | {"seconds": ours["seconds"]})
    reference = in_own_process(f"{name}-reference", goal)
    line = {
        "name": name,
        "seed": task.seed,
        "ours": ours,
        "reference": reference,
        "speed_ratio": round(reference["seconds"] / ours["seconds"], 2),
        "is_lower_bound": not reference["is_reached"],
        "memory_ratio": round(ours["peak_memory_mib"] / max(reference["peak_memory_mib"], 1), 3),
    }
    print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["erase", "inversion"])
    parser.add_argument("--repeat", type=int, default=3, help="repetitions, each with the next seed")
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument(
        "--reference-learning-rate",
        type=float,
        default=Size.reference_learning_rate,
        help="of SDD; default: as published",
    )
    parser.add_argument("--erase-steps", type=int, default=Size.erase_steps, help="of ours")
    parser.add_argument("--max-ratio", type=float, default=Size.max_ratio, help="of the reference's seconds to ours")
    parser.add_argument("--tiny", action="store_true", help="a smoke run; its numbers mean nothing")
    parser.add_argument("--part", choices=[*PARTS, "material"], help=argparse.SUPPRESS)
    parser.add_argument("--size", type=lambda text: Size(**json.loads(text)), help=argparse.SUPPRESS)
    parser.add_argument("--goal", type=json.loads, default={}, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    options = {name: getattr(arguments, name) for name in ("reference_learning_rate", "erase_steps", "max_ratio")}
    size = arguments.size or (TINY if arguments.tiny else Size(**options))
    if arguments.part == "material":
        make_material(size, arguments.folder)
        print("{}")
    elif arguments.part:
        print(json.dumps(PARTS[arguments.part](Task(size, arguments.folder, arguments.goal, arguments.seed))))
    else:
        with tempfile.TemporaryDirectory() as folder:
            task = Task(size, Path(folder), {}, arguments.seed)
            in_own_process("material", task)
            for repetition in range(arguments.repeat):
                for name in arguments.names:
                    compare(name, dataclasses.replace(task, seed=arguments.seed + repetition))


if __name__ == "__main__":
    main()
