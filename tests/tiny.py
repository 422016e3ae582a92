"""Tiny random models built from the real classes: same code paths as a large model, seconds instead of minutes.

Nothing here is trained. What the tests check on them is plumbing: shapes, formats, gradients, what changes and what
does not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
)

# fmt: off
WORDS = (
    "a", "an", "and", "of", "the", "photo", "on", "red", "blue", "white", "background",
    "cat", "dog", "apple", "bomb", "axe", "weapon",
)
# fmt: on
TEXT_WIDTH = 16
SECOND_WIDTH = 24  # SDXL's second text encoder; its two encoders are told apart by their widths
POOLED_WIDTH = 20
MAX_TOKENS = 16
IMAGE_SIZE_PX = 32
LATENT_SIZE = 8


def build_tokenizer(pad_token: str = "<|endoftext|>") -> CLIPTokenizer:
    """A CLIP tokenizer whose vocabulary is WORDS, the letters and the two special tokens.

    A word becomes one token because its letters are merged from the left; unknown words fall apart into letters.
    """
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters)])
    merges: dict[tuple[str, str], None] = {}
    for word in WORDS:
        symbols = [*word[:-1], f"{word[-1]}</w>"]
        left = symbols[0]
        for right in symbols[1:]:
            merges[(left, right)] = None
            left += right
            vocabulary[left] = None
    tokens = ["<|startoftext|>", "<|endoftext|>", *vocabulary]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=list(merges),
        pad_token=pad_token,
        model_max_length=MAX_TOKENS,
    )


def build_text_config(
    tokenizer: CLIPTokenizer, width: int = TEXT_WIDTH, projection_dim: int = TEXT_WIDTH, hidden_act: str = "quick_gelu"
) -> CLIPTextConfig:
    """Configuration of a two-layer text encoder for `tokenizer`; OpenCLIP's have the activation `gelu`."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        hidden_act=hidden_act,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=projection_dim,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build_unet(cross_attention_dim: int = TEXT_WIDTH, **options: object) -> UNet2DConditionModel:
    """A random UNet for 8 x 8 x 4 latents."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=2,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **options,
    )


def build_vae() -> AutoencoderKL:
    """A random autoencoder between 32 px pictures and 8 x 8 x 4 latents."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=IMAGE_SIZE_PX,
    )


def build_scheduler(prediction_type: str = "epsilon") -> DDIMScheduler:
    """Stable Diffusion's noise schedule with the deterministic sampler."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def build_pipeline(
    seed: int = 0, prediction_type: Literal["epsilon", "v_prediction"] = "epsilon", hidden_act: str = "quick_gelu"
) -> StableDiffusionPipeline:
    """A random Stable Diffusion 1.x-style pipeline of about 0.2 M parameters: 32 px pictures, 8 x 8 x 4 latents.

    Args:
        seed: Seed of the weights; the global generator is left as it was.
        prediction_type: What the UNet is said to predict.
        hidden_act: `gelu` makes its text encoder one of OpenCLIP's, as in Stable Diffusion 2.x.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer()
        text_encoder = CLIPTextModel(build_text_config(tokenizer, hidden_act=hidden_act))
        unet = build_unet()
        vae = build_vae()
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def build_pipeline_xl(seed: int = 0, force_zeros_for_empty_prompt: bool = True) -> StableDiffusionXLPipeline:
    """A random SDXL pipeline: two text encoders, a pooled embedding, size conditions; pictures as those of the other.

    Args:
        seed: Seed of the weights; the global generator is left as it was.
        force_zeros_for_empty_prompt: Whether zeros stand for the empty prompt, as in the published model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer, second_tokenizer = build_tokenizer(), build_tokenizer(pad_token="z")
        second_config = build_text_config(second_tokenizer, SECOND_WIDTH, POOLED_WIDTH, "gelu")
        pipeline = StableDiffusionXLPipeline(
            vae=build_vae(),
            text_encoder=CLIPTextModel(build_text_config(tokenizer)),
            text_encoder_2=CLIPTextModelWithProjection(second_config),
            tokenizer=tokenizer,
            tokenizer_2=second_tokenizer,
            unet=build_unet(
                TEXT_WIDTH + SECOND_WIDTH,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + POOLED_WIDTH,
                use_linear_projection=True,
            ),
            scheduler=build_scheduler(),
            force_zeros_for_empty_prompt=force_zeros_for_empty_prompt,
            add_watermarker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def build_clip(seed: int = 0) -> CLIPModel:
    """A random CLIP with 32 px pictures, 8 px patches and embeddings of TEXT_WIDTH numbers."""
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=IMAGE_SIZE_PX,
        patch_size=8,
        projection_dim=TEXT_WIDTH,
    )
    text = build_text_config(build_tokenizer())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel(
            CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=TEXT_WIDTH)
        ).eval()


def save_pipeline(folder: Path, seed: int = 0, prediction_type: Literal["epsilon", "v_prediction"] = "epsilon") -> Path:
    """Write a tiny pipeline, with its CLIP beside it in `clip/`, as a model folder and return the folder."""
    build_pipeline(seed, prediction_type).save_pretrained(folder)
    build_clip(seed).save_pretrained(folder / "clip")
    return folder
