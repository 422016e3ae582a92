"""Put the trained parts together into the shipped folder, in half precision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from hfi.mini import networks
from hfi.mini.steps import Average, Checkpoint


def assemble(build: Path, folder: Path) -> int:
    """Write `folder`: a StableDiffusionPipeline folder plus clip/, eye/ and judge/. Returns its size in bytes.

    An unfinished UNet is taken from its last checkpoint, an autoencoder without its last stage as it is. The folder is
    made beside its place and renamed into it.
    """
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(build / "tokenizer")
    clip = CLIPModel.from_pretrained(build / "clip_image")
    text_encoder = CLIPTextModel(clip.config.text_config)
    text_encoder.load_state_dict(clip.text_model.state_dict())
    if (build / "unet").exists():
        unet = UNet2DConditionModel.from_pretrained(build / "unet")
    else:
        unet = networks.build_unet()
        average = Average(unet, 0.0)
        Checkpoint(build / "unet.pt").restore(average=average)
        unet.load_state_dict(average.shadow)
    vae = build / "decoder" if (build / "decoder").exists() else build / "vae"
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(vae), text_encoder=text_encoder, tokenizer=tokenizer, unet=unet,
        scheduler=networks.build_scheduler(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(unfinished)
    clip.half().save_pretrained(unfinished / "clip")
    for config in (unfinished / "text_encoder" / "config.json", unfinished / "clip" / "config.json"):
        # Shipped in half precision, computed in single: a CPU has no half-precision kernels worth having.
        config.write_text(config.read_text(encoding="utf-8").replace('"float16"', '"float32"'), encoding="utf-8")
    backend = json.loads((unfinished / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in backend["merges"]]
    (unfinished / "tokenizer" / "vocab.json").write_text(
        json.dumps(backend["vocab"], ensure_ascii=False), encoding="utf-8"
    )
    (unfinished / "tokenizer" / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    for name in ("eye", "judge"):
        if (build / name).exists():
            shutil.copytree(build / name, unfinished / name)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
