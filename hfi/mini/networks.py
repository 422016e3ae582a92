"""The embedded model's networks, built from diffusers' and transformers' own classes, and its two detectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from jaxtyping import Float
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from hfi.mini.world import IMAGE_SIZE_PX, World

TEXT_WIDTH = 128
MAX_TOKENS = 32
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(words: tuple[str, ...], folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer whose merges make every given word one token; any other text falls into letters and bytes."""
    backend = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, initial_alphabet=alphabet, end_of_word_suffix="</w>", special_tokens=[], show_progress=False
    )
    backend.train_from_iterator([*words, ","] * 4, trainer=trainer)
    state = json.loads(backend.to_str())["model"]
    vocab = dict(state["vocab"])
    for letter in alphabet:
        vocab.setdefault(letter, len(vocab))
        vocab.setdefault(letter + "</w>", len(vocab))
    for special in (BEGIN, END):
        vocab.setdefault(special, len(vocab))
    merges = [tuple(pair) for pair in state["merges"]]
    tokenizer = CLIPTokenizer(
        vocab=vocab,
        merges=merges,
        bos_token=BEGIN,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=MAX_TOKENS,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def build_clip(tokenizer: CLIPTokenizer, patch_size_px: int = 8) -> CLIPModel:
    """Text: 3 layers; image: 4 layers on square patches; both 128 wide (1.6 M parameters)."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 4 * TEXT_WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_TOKENS,
        "projection_dim": TEXT_WIDTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 4 * TEXT_WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": IMAGE_SIZE_PX,
        "patch_size": patch_size_px,
        "projection_dim": TEXT_WIDTH,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=TEXT_WIDTH))


def build_vae() -> AutoencoderKL:
    """64x64x3 pixels <-> 16x16x4 latents; channels 32-64-96, one layer a block."""
    channels = (32, 64, 96)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=IMAGE_SIZE_PX,
    )


def build_unet() -> UNet2DConditionModel:
    """Noise prediction on 16x16x4 latents; channels 64-128-192, cross-attention on the two lower levels (10.9 M
    parameters)."""
    return UNet2DConditionModel(
        sample_size=IMAGE_SIZE_PX // 4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion 1.x's noise schedule, epsilon prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a skip connection; halves the picture."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.skip = nn.Conv2d(in_channels, out_channels, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


class DepthwiseBlock(nn.Module):
    """A ConvNeXt-like block: 5x5 depthwise convolution, then a two-layer MLP per pixel, with a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm = nn.GroupNorm(1, channels)
        self.mlp = nn.Sequential(nn.Conv2d(channels, 3 * channels, 1), nn.GELU(), nn.Conv2d(3 * channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(self.depthwise(x)))


class SceneDetector(nn.Module):
    """What is in a picture: independent logits for every object, and one logit a style and a background.

    Args:
        world: what can be there.
        architecture: `residual` (the eye) or `depthwise` (the judge).
    """

    def __init__(self, world: World, architecture: Literal["residual", "depthwise"]) -> None:
        super().__init__()
        self.sizes = (len(world.objects), len(world.styles), len(world.backgrounds))
        if architecture == "residual":
            self.trunk = nn.Sequential(
                nn.Conv2d(3, 32, 5, padding=2, stride=2),
                nn.ReLU(),
                ResidualBlock(32, 64),
                ResidualBlock(64, 128),
                ResidualBlock(128, 192),
            )
            width = 192
        else:
            width = 144
            self.trunk = nn.Sequential(
                nn.Conv2d(3, 64, 4, stride=4),
                DepthwiseBlock(64),
                DepthwiseBlock(64),
                nn.Conv2d(64, width, 2, stride=2),
                DepthwiseBlock(width),
                DepthwiseBlock(width),
                DepthwiseBlock(width),
            )
        self.object_head = nn.Conv2d(width, self.sizes[0], 1)
        self.scene_head = nn.Linear(2 * width, self.sizes[1] + self.sizes[2])

    def forward(
        self, pixels: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch objects"], Float[Tensor, "batch styles"], Float[Tensor, "batch backgrounds"]]:
        """Logits; an object's logit is the highest anywhere in the picture. `pixels` are in -1..1."""
        features = self.trunk(pixels)
        objects = self.object_head(features).flatten(2).amax(dim=2)
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        styles, backgrounds = self.scene_head(pooled).split(self.sizes[1:], dim=1)
        return objects, styles, backgrounds
