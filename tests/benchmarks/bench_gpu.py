"""Erasing and steering at Stable Diffusion 1.5's size, with random weights: ``python tests/benchmarks/bench_gpu.py``.

Prints JSON. A GPU is needed; ``--tiny`` runs the same on a CPU with a UNet of 0.1 M parameters, whose numbers mean
nothing.

Protocol: a UNet of Stable Diffusion 1.5's configuration (860 M parameters, 64 x 64 latents, weights in float32), prompt
embeddings drawn at random, everything else ours: `hfi.erase.training`, `hfi.pipelines`, `hfi.guidance`.

matmul    rate of one 8192^3 product in bfloat16, TFLOP/s, best of 20: what this card can do in practice
training  SDD's step on cross-attention (student's forward and backward, AdamW, average) at batch 12 + 12 in bfloat16,
          its targets from the bank: steps/s after 5 to warm up, median of `--repeat` x 20, peak memory. Its arithmetic
          is counted by PyTorch's own counter over one step, so its share of the matmul rate is stated, not guessed
sampling  milliseconds of one sampler step of a batch of 4: plain guidance (two parts) and SLD (three parts), taking
          turns; the ratio is the median of the pairs
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2])]

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from hfi.config import EraseConfig
from hfi.erase.training import start_training, take_step_
from hfi.guidance import SLD_LEVELS, sample_latents_sld
from hfi.pipelines import computing_in, predict_noise, sample_latents

WARMUP_STEPS, STEPS = 5, 20
TARGETS = {"matmul_share": 0.5, "peak_memory_gb": 12.0, "sld_ratio": 1.5}  # at least; at most; at most


def build_pipeline(device: torch.device, is_tiny: bool) -> Any:
    """A UNet and a scheduler are all that a step needs."""
    small = {
        "sample_size": 8, "block_out_channels": (16, 32), "layers_per_block": 1, "cross_attention_dim": 16,
        "attention_head_dim": 2, "norm_num_groups": 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet2DConditionModel(**(small if is_tiny else {"sample_size": 64, "cross_attention_dim": 768}))
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    return SimpleNamespace(unet=unet.requires_grad_(False).eval(), scheduler=scheduler, vae_scale_factor=8)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def matmul_rate(device: torch.device, side: int) -> float:
    """FLOP/s of one square product in bfloat16."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / min(seconds_of(lambda: a @ b, device) for _ in range(20))


def draw(pipeline: Any, count: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, timesteps and prompt embeddings of 77 rows."""
    config = pipeline.unet.config
    latents = torch.randn(count, 4, config.sample_size, config.sample_size, device=device)
    timesteps = torch.randint(0, 1000, (count,), device=device)
    return latents, timesteps, torch.randn(count, 77, config.cross_attention_dim, device=device)


def measure_training(pipeline: Any, device: torch.device, batch_size: int, repeat: int) -> dict[str, float]:
    """Steps/s, FLOP of a step, peak memory in GB."""
    config = EraseConfig(batch_size=batch_size, precision="bfloat16")
    state = start_training(pipeline.unet, config, has_teacher=True)
    latents, timesteps, embeds = draw(pipeline, 2 * batch_size, device)
    targets = torch.randn_like(latents)

    def step() -> None:
        predictions = predict_noise(pipeline, latents, timesteps, embeds, unet=state.student)
        losses = [
            (ours - wanted).square().mean() for ours, wanted in zip(predictions.chunk(2), targets.chunk(2), strict=True)
        ]
        take_step_(state, losses[0] + config.retain_weight * losses[1], losses, config)

    with computing_in(config.precision):
        for _ in range(WARMUP_STEPS):
            step()
        with FlopCounterMode(display=False) as counter:
            step()
        seconds = [seconds_of(lambda: [step() for _ in range(STEPS)], device) / STEPS for _ in range(repeat)]
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
    return {
        "steps_per_second": 1 / statistics.median(seconds),
        "tflop_a_step": counter.get_total_flops() / 1e12,
        "peak_memory_gb": peak,
    }


def measure_sampling(pipeline: Any, device: torch.device, repeat: int) -> dict[str, float]:
    """Milliseconds of a step of plain guidance and of SLD, and their ratio."""
    latents, _, embeds = draw(pipeline, 4, device)
    null, concept = embeds[:1] * 0.5, embeds[:1] * 2.0
    ways: dict[str, Callable[[], object]] = {
        "plain": lambda: sample_latents(pipeline, embeds, null, latents, STEPS, 7.5),
        "sld": lambda: sample_latents_sld(
            pipeline, embeds, null, concept, latents, STEPS, 7.5, SLD_LEVELS["medium"]
        ),
    }  # fmt: skip
    with computing_in("bfloat16"):
        pairs = [{name: seconds_of(way, device) / STEPS for name, way in ways.items()} for _ in range(repeat + 1)][1:]
    found = {f"{name}_ms": 1e3 * statistics.median(pair[name] for pair in pairs) for name in ways}
    return found | {"sld_ratio": statistics.median(pair["sld"] / pair["plain"] for pair in pairs)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=12, help="pictures of each term (default: 12, ours)")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="a smoke run on any machine; its numbers mean nothing")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.tiny:
        print("No GPU is here, so nothing was measured; --tiny runs the same at toy size on a CPU.")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipeline = build_pipeline(device, arguments.tiny)
    rate = matmul_rate(device, 256 if arguments.tiny else 8192)
    training = measure_training(pipeline, device, arguments.batch_size, arguments.repeat)
    share = training["tflop_a_step"] * 1e12 * training["steps_per_second"] / rate
    found = {"matmul_tflops": rate / 1e12, **training, "matmul_share": share}
    found |= measure_sampling(pipeline, device, arguments.repeat)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    rounded = {key: float(f"{value:.4g}") for key, value in found.items()}
    print(json.dumps({"device": name, "torch": torch.__version__, **rounded, "wanted": TARGETS}, indent=1))


if __name__ == "__main__":
    main()
