"""A whole model as one safetensors file in the layout of the original code, which kohya, A1111 and ComfyUI read.

Diffusers converts from this layout and not to it. Here a table of prefixes says where each part goes, the modules in a
part are renamed, and a name that no line of the table covers is an error rather than a weight left out.
Source of the names: CompVis/stable-diffusion (SD 1.x), Stability-AI/generative-models (SDXL), open_clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hfi.errors import InvalidInputError
from hfi.pipelines import Pipeline, is_xl

Renames = tuple[tuple[str, str], ...]

UNET_PREFIX, VAE_PREFIX = "model.diffusion_model.", "first_stage_model."
CLIP_PREFIX, OPEN_CLIP_PREFIX = "cond_stage_model.transformer.text_model.", "cond_stage_model.model."
XL_CLIP_PREFIX = "conditioner.embedders.0.transformer.text_model."
XL_OPEN_CLIP_PREFIX = "conditioner.embedders.1.model."

UNET_RESNET: Renames = (
    ("norm1.", "in_layers.0."),
    ("conv1.", "in_layers.2."),
    ("time_emb_proj.", "emb_layers.1."),
    ("norm2.", "out_layers.0."),
    ("conv2.", "out_layers.3."),
    ("conv_shortcut.", "skip_connection."),
)
VAE_RESNET: Renames = (("conv_shortcut.", "nin_shortcut."),)
VAE_ATTENTION: Renames = (
    ("group_norm.", "norm."),
    ("to_q.", "q."),
    ("to_k.", "k."),
    ("to_v.", "v."),
    ("to_out.0.", "proj_out."),
)
OPEN_CLIP: Renames = (
    ("layer_norm1.", "ln_1."),
    ("layer_norm2.", "ln_2."),
    ("mlp.fc1.", "mlp.c_fc."),
    ("mlp.fc2.", "mlp.c_proj."),
    ("self_attn.out_proj.", "attn.out_proj."),
)
OPEN_CLIP_NAMES = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}

# (prefix here, prefix there, renames of the modules below it)
Line = tuple[str, str, Renames]


def unet_table(config: Mapping[str, Any]) -> Iterator[Line]:
    """Where each part of a UNet goes; blocks are counted through, resolutions and layers alike."""
    layers, num_blocks = config["layers_per_block"], len(config["block_out_channels"])
    if not isinstance(layers, int):
        raise InvalidInputError("A UNet with different numbers of layers has no single-file layout: choose a folder.")
    yield from (("conv_in.", "input_blocks.0.0.", ()), ("conv_norm_out.", "out.0.", ()), ("conv_out.", "out.2.", ()))
    for name, place in (("time_embedding", "time_embed"), ("add_embedding", "label_emb.0"),
                        ("class_embedding", "label_emb.0")):  # fmt: skip
        yield f"{name}.linear_1.", f"{place}.0.", ()
        yield f"{name}.linear_2.", f"{place}.2.", ()
    for block in range(num_blocks):
        for layer in range(layers):
            place = f"input_blocks.{1 + block * (layers + 1) + layer}"
            yield f"down_blocks.{block}.resnets.{layer}.", f"{place}.0.", UNET_RESNET
            yield f"down_blocks.{block}.attentions.{layer}.", f"{place}.1.", ()
        place = f"input_blocks.{(block + 1) * (layers + 1)}"
        yield f"down_blocks.{block}.downsamplers.0.conv.", f"{place}.0.op.", ()
        for layer in range(layers + 1):
            place = f"output_blocks.{block * (layers + 1) + layer}"
            yield f"up_blocks.{block}.resnets.{layer}.", f"{place}.0.", UNET_RESNET
            yield f"up_blocks.{block}.attentions.{layer}.", f"{place}.1.", ()
        has_attention = "CrossAttn" in config["up_block_types"][block]
        yield f"up_blocks.{block}.upsamplers.0.conv.", f"{place}.{2 if has_attention else 1}.conv.", ()
    yield "mid_block.resnets.0.", "middle_block.0.", UNET_RESNET
    yield "mid_block.attentions.0.", "middle_block.1.", ()
    yield "mid_block.resnets.1.", "middle_block.2.", UNET_RESNET


def vae_table(config: Mapping[str, Any]) -> Iterator[Line]:
    """Where each part of an autoencoder goes; the decoder's blocks are counted from the other end."""
    num_blocks = len(config["block_out_channels"])
    yield from (("quant_conv.", "quant_conv.", ()), ("post_quant_conv.", "post_quant_conv.", ()))
    for half, blocks, place, sampler in (("encoder", "down_blocks", "down", "downsample"),
                                         ("decoder", "up_blocks", "up", "upsample")):  # fmt: skip
        for name, other in (("conv_in.", "conv_in."), ("conv_out.", "conv_out."), ("conv_norm_out.", "norm_out.")):
            yield f"{half}.{name}", f"{half}.{other}", ()
        for block in range(num_blocks):
            there = block if half == "encoder" else num_blocks - 1 - block
            yield f"{half}.{blocks}.{block}.{sampler}rs.0.conv.", f"{half}.{place}.{there}.{sampler}.conv.", ()
            for layer in range(config["layers_per_block"] + 1):
                here = f"{half}.{blocks}.{block}.resnets.{layer}."
                yield here, f"{half}.{place}.{there}.block.{layer}.", VAE_RESNET
        for layer in (0, 1):
            yield f"{half}.mid_block.resnets.{layer}.", f"{half}.mid.block_{layer + 1}.", VAE_RESNET
        yield f"{half}.mid_block.attentions.0.", f"{half}.mid.attn_1.", VAE_ATTENTION


def renamed(weights: Mapping[str, Tensor], table: Iterator[Line], prefix: str) -> dict[str, Tensor]:
    """Weights under the names that a table gives them.

    Raises:
        InvalidInputError: A weight is in no line of the table.
    """
    lines = list(table)
    result = {}
    for name, weight in weights.items():
        line = next((line for line in lines if name.startswith(line[0])), None)
        if line is None:
            raise InvalidInputError(f"The weight {name} has no place in the single-file layout: choose a folder.")
        here, there, renames = line
        rest = name.removeprefix(here)
        for old, new in renames:
            rest = new + rest.removeprefix(old) if rest.startswith(old) else rest
        result[prefix + there + rest] = weight
    return result


def vae_weights(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """An autoencoder's weights; its attention consists of 1 x 1 convolutions there."""
    there = renamed(weights, vae_table(config), VAE_PREFIX)
    is_matrix = {name: ".mid.attn_1." in name and weight.ndim == 2 for name, weight in there.items()}
    return {name: weight[:, :, None, None] if is_matrix[name] else weight for name, weight in there.items()}


def open_clip_weights(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """A text encoder's weights under open_clip's names: queries, keys and values are one matrix there."""
    weights = {name.removeprefix("text_model."): weight for name, weight in weights.items()}
    result: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if name in OPEN_CLIP_NAMES:
            result[prefix + OPEN_CLIP_NAMES[name]] = weight
        elif name == "text_projection.weight":
            result[prefix + "text_projection"] = weight.T
        elif ".self_attn.q_proj." in name:
            layer, kind = name.removeprefix("encoder.layers.").split(".self_attn.q_proj.")
            parts = [weights[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            result[f"{prefix}transformer.resblocks.{layer}.attn.in_proj_{kind}"] = torch.cat(parts)
        elif ".k_proj." not in name and ".v_proj." not in name:
            layer, rest = name.removeprefix("encoder.layers.").split(".", 1)
            table = ((old, f"transformer.resblocks.{layer}.{new}", ()) for old, new in OPEN_CLIP)
            result |= renamed({rest: weight}, table, prefix)
    return result


def clip_weights(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """A text encoder's weights under the names that transformers gave them when the layout was made."""
    return {prefix + name.removeprefix("text_model."): weight for name, weight in weights.items()}


def single_file_weights(pipeline: Pipeline) -> dict[str, Tensor]:
    """All weights of a pipeline under the names of the original code.

    Raises:
        InvalidInputError: A weight has no place there.
    """
    there = renamed(pipeline.unet.state_dict(), unet_table(pipeline.unet.config), UNET_PREFIX)
    there |= vae_weights(pipeline.vae.state_dict(), pipeline.vae.config)
    words = pipeline.text_encoder.state_dict()
    if is_xl(pipeline):
        there |= clip_weights(words, XL_CLIP_PREFIX)
        there |= open_clip_weights(pipeline.text_encoder_2.state_dict(), XL_OPEN_CLIP_PREFIX)
    elif pipeline.text_encoder.config.hidden_act == "gelu":  # OpenCLIP's activation: Stable Diffusion 2.x
        there |= open_clip_weights(words, OPEN_CLIP_PREFIX)
    else:
        there |= clip_weights(words, CLIP_PREFIX)
    return there


def write_single_file(pipeline: Pipeline, file: Path, dtype: torch.dtype, metadata: dict[str, str]) -> None:
    """Write the file; `write_config` beside it lets diffusers load it without network."""
    weights = {
        name: weight.detach().cpu().to(dtype).contiguous() for name, weight in single_file_weights(pipeline).items()
    }
    prediction = pipeline.scheduler.config.prediction_type
    save_file(weights, file, metadata={"format": "pt", "modelspec.prediction_type": prediction, **metadata})


def write_config(pipeline: Pipeline, folder: Path) -> None:
    """Write configurations and tokenizers, without weights, as the folder that `from_single_file(config=...)` takes."""
    pipeline.save_config(folder)
    for name, part in pipeline.components.items():
        if part is None:
            continue
        config = getattr(part, "config", None)
        if hasattr(part, "save_config"):
            part.save_config(folder / name)
        elif config is not None:
            config.save_pretrained(folder / name)
        else:
            part.save_pretrained(folder / name)
