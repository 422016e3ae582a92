"""Prompts -> prompt embeddings, for one text encoder or two.

Stable Diffusion XL reads more than its cross-attention does: a pooled embedding of the whole prompt. It travels as one
more row behind the tokens, padded with zeros, so that everything else goes on handling one tensor a prompt;
`hfi.pipelines.cross_attention_states` takes it off again. In the same way a learned row of SDXL is the rows of both
encoders side by side.
Source: SDXL, arXiv 2307.01952, section 2.1.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hfi.errors import EmptyPromptListError
from hfi.pipelines.loading import Pipeline, is_xl

NO_ROW = -1  # in a row map: an ordinary word

_null_embeds: weakref.WeakKeyDictionary[nn.Module, Tensor] = weakref.WeakKeyDictionary()


def text_encoders(pipeline: Pipeline) -> list[Any]:
    """The text encoder, or both of SDXL."""
    return [pipeline.text_encoder, pipeline.text_encoder_2] if is_xl(pipeline) else [pipeline.text_encoder]


def tokenizers(pipeline: Pipeline) -> list[Any]:
    """The tokenizer, or both of SDXL; they have the same words and differ in what they pad with."""
    return [pipeline.tokenizer, pipeline.tokenizer_2] if is_xl(pipeline) else [pipeline.tokenizer]


def embedding_width(pipeline: Pipeline) -> int:
    """Numbers in a learned row."""
    return sum(encoder.get_input_embeddings().weight.shape[1] for encoder in text_encoders(pipeline))


def embedding_table(pipeline: Pipeline) -> Float[Tensor, "vocabulary dim"]:
    """The embedding of every word before the text encoder; for SDXL those of both encoders side by side."""
    return torch.cat([encoder.get_input_embeddings().weight.detach() for encoder in text_encoders(pipeline)], dim=1)


def tokenize(pipeline: Pipeline, prompts: Sequence[str]) -> Int[Tensor, "batch tokens"]:
    """Token ids padded to the model's length and cut off there; concept tokens of several vectors are spread."""
    spread = [pipeline.maybe_convert_prompt(prompt, pipeline.tokenizer) for prompt in prompts]
    return pipeline.tokenizer(
        spread,
        padding="max_length",
        max_length=pipeline.tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def encode_token_ids(pipeline: Pipeline, token_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch rows dim"]:
    """What the UNet reads of prompts: a row for each token and, for SDXL, one more for the pooled embedding."""
    token_ids = token_ids.to(pipeline.text_encoder.device)
    if is_xl(pipeline):
        return _encode_token_ids_xl(pipeline, token_ids)
    mask = None
    if getattr(pipeline.text_encoder.config, "use_attention_mask", False):
        mask = (token_ids != pipeline.tokenizer.pad_token_id).long()
    return pipeline.text_encoder(token_ids, attention_mask=mask)[0]


def _encode_token_ids_xl(pipeline: Pipeline, token_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch rows dim"]:
    """The last but one layer of both encoders side by side, then the second encoder's pooled embedding."""
    is_end = token_ids == pipeline.tokenizer.eos_token_id
    is_padding = is_end.cumsum(dim=1) > is_end.long()  # behind the first end
    second_ids = token_ids.masked_fill(is_padding, pipeline.tokenizer_2.pad_token_id)
    first = pipeline.text_encoder(token_ids, output_hidden_states=True)
    second = pipeline.text_encoder_2(second_ids, output_hidden_states=True)
    states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
    pooled = nn.functional.pad(second.text_embeds, (0, states.shape[-1] - second.text_embeds.shape[-1]))
    embeds = torch.cat([states, pooled.unsqueeze(1)], dim=1)
    if pipeline.config.force_zeros_for_empty_prompt:  # the model was trained with zeros where no prompt is given
        embeds = embeds.masked_fill(is_end[:, 1, None, None], 0.0)
    return embeds


@torch.no_grad()
def encode_prompts(
    pipeline: Pipeline, prompts: Sequence[str], batch_size: int = 256
) -> Float[Tensor, "batch rows dim"]:
    """Prompt embeddings of any number of prompts; each different prompt is encoded once."""
    if not prompts:
        raise EmptyPromptListError("No prompt was given: give at least one.")
    unique = list(dict.fromkeys(prompts))
    chunks = [unique[start : start + batch_size] for start in range(0, len(unique), batch_size)]
    embeds = torch.cat([encode_token_ids(pipeline, tokenize(pipeline, chunk)) for chunk in chunks])
    rows = {prompt: row for row, prompt in enumerate(unique)}
    return embeds[[rows[prompt] for prompt in prompts]]


def encode_null_prompt(pipeline: Pipeline) -> Float[Tensor, "1 rows dim"]:
    """Embedding of the empty prompt (c0), encoded once for each text encoder and kept while it lives."""
    cached = _null_embeds.get(pipeline.text_encoder)
    if cached is None or cached.device != pipeline.text_encoder.device:
        cached = _null_embeds[pipeline.text_encoder] = encode_prompts(pipeline, [""])
    return cached


@contextmanager
def spliced_rows(
    pipeline: Pipeline, rows: Float[Tensor, "rows dim"], row_ids: Int[Tensor, "prompts tokens"]
) -> Iterator[None]:
    """While open, every text encoder reads learned rows where `row_ids` says so, and words where it says NO_ROW.

    Args:
        rows: As wide as `embedding_table`; gradients reach them.
    """
    is_learned = (row_ids != NO_ROW).unsqueeze(-1)
    tables = [encoder.get_input_embeddings() for encoder in text_encoders(pipeline)]
    parts = rows[row_ids.clamp_min(0)].split([table.weight.shape[1] for table in tables], dim=-1)

    def splice(learned: Tensor) -> Any:
        return lambda _module, _inputs, words: torch.where(is_learned, learned.to(words.dtype), words)

    with ExitStack() as hooks:
        for table, learned in zip(tables, parts, strict=True):
            hooks.callback(table.register_forward_hook(splice(learned)).remove)
        yield
