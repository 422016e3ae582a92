"""Concept tokens: what inversion learns, how it is stored, and how prompts with placeholders are encoded.

Embedding rows are spliced into the text encoder's input, so nothing of the pipeline changes until `add_tokens_` is
asked to.
Source: textual inversion, arXiv 2208.01618.
"""

from __future__ import annotations

import hashlib
import json
import re
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hfi.errors import InvalidInputError, UnknownTokenError
from hfi.pipelines import NO_ROW, Pipeline, embedding_width, encode_token_ids, spliced_rows, text_encoders, tokenizers

WEIGHTS_NAME = "learned_embeds.safetensors"
WEBUI_FOLDER = "webui"  # A1111 and ComfyUI name a token after its file
WEBUI_KEY = "emb_params"  # A1111's key of the rows of a single text encoder
WEBUI_KEYS_XL = ("clip_l", "clip_g")
CARD_NAME = "card.json"
STAND_IN_ID = 0  # stands where a learned row will be; any id that neither ends nor pads a prompt


@dataclass(frozen=True)
class ConceptToken:
    """A learned word: embedding rows that stand for a concept as annotators see it.

    Attributes:
        placeholder: How prompts name it, such as `<concept-1>`.
        learned_embeds: Rows of the text encoder's input embedding, float32.
        initializer: Word it started from; empty = the mean of the vocabulary.
        card: Plain JSON: figures of the training and where it comes from.
    """

    placeholder: str
    learned_embeds: Float[Tensor, "vectors dim"]
    initializer: str = ""
    card: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: str | Path) -> Path:
        """Write `learned_embeds.safetensors`, which `pipe.load_textual_inversion` reads, and `card.json`.

        Beside them, `webui/<name>.safetensors` is the same token in the layout of A1111 and ComfyUI.
        """
        path = Path(folder)
        (path / WEBUI_FOLDER).mkdir(parents=True, exist_ok=True)
        save_file({self.placeholder: self.learned_embeds.detach().cpu().float().contiguous()}, path / WEIGHTS_NAME)
        save_file(webui_tensors(self), path / WEBUI_FOLDER / f"{folder_name(self.placeholder)}.safetensors")
        card = self.card | {"placeholder": self.placeholder, "initializer": self.initializer}
        (path / CARD_NAME).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        return path / WEIGHTS_NAME


def webui_tensors(token: ConceptToken) -> dict[str, Tensor]:
    """The rows under the keys that A1111 and ComfyUI read: one tensor for each text encoder."""
    rows = token.learned_embeds.detach().cpu().float().contiguous()
    widths = token.card.get("encoder_widths", [rows.shape[1]])
    if len(widths) == 1:
        return {WEBUI_KEY: rows}
    return {key: part.contiguous() for key, part in zip(WEBUI_KEYS_XL, rows.split(widths, dim=1), strict=True)}


def folder_name(placeholder: str) -> str:
    """`<concept-1>` -> `concept-1`."""
    return re.sub(r"[^\w-]+", "", placeholder)


def placeholder_names(placeholder: str, count: int) -> list[str]:
    """`<concept>` for one token; `<concept-1>`, `<concept-2>`, ... for several."""
    if count == 1:
        return [placeholder]
    stem, closing = (placeholder[:-1], ">") if placeholder.endswith(">") else (placeholder, "")
    return [f"{stem}-{number}{closing}" for number in range(1, count + 1)]


def save_concept_tokens(folder: str | Path, tokens: Sequence[ConceptToken]) -> list[Path]:
    """Write each token into its own folder `<folder>/<name>/`, since diffusers reads one token a file."""
    return [token.save(Path(folder) / folder_name(token.placeholder)) for token in tokens]


def load_concept_tokens(path: str | Path) -> list[ConceptToken]:
    """Load tokens from a file, from a folder that holds one, or from a folder of such folders (in name order).

    A file may also have the layout of A1111 and ComfyUI; its token is then called `<name of the file>`.

    Raises:
        UnknownTokenError: There is none, or one is unreadable, not two-dimensional or not finite.
    """
    root = Path(path)
    files = [root] if root.is_file() else sorted(root.rglob(WEIGHTS_NAME), key=_natural_order)
    if not files:
        raise UnknownTokenError(f"{root} holds no concept token ({WEIGHTS_NAME}): run `hfi invert` first.")
    return [_load_concept_token(file) for file in files]


def _natural_order(path: Path) -> list[int | str]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def _load_concept_token(file: Path) -> ConceptToken:
    try:
        with safe_open(str(file), framework="pt") as tensors:
            keys = list(tensors.keys())
            is_xl = set(keys) == set(WEBUI_KEYS_XL)
            (placeholder,) = [f"<{file.stem}>"] if is_xl or keys == [WEBUI_KEY] else keys
            rows = torch.cat([tensors.get_tensor(key).float() for key in (WEBUI_KEYS_XL if is_xl else keys)], dim=-1)
        card_file = file.with_name(CARD_NAME)
        card = json.loads(card_file.read_text(encoding="utf-8")) if card_file.is_file() else {}
    except Exception as error:  # safetensors, JSON and the file system share no base class
        raise UnknownTokenError(f"{file} is not a concept token ({error}): run `hfi invert` again.") from error
    rows = rows.unsqueeze(0) if rows.ndim == 1 else rows
    if rows.ndim != 2 or not rows.isfinite().all():
        raise UnknownTokenError(f"{file}: the rows of {placeholder} are not finite numbers: run `hfi invert` again.")
    return ConceptToken(placeholder, rows, card.get("initializer", ""), card)


def check_token_fits(pipeline: Pipeline, token: ConceptToken) -> None:
    """Raise UnknownTokenError if the token was learned on a model with other words, or of another width."""
    dim = embedding_width(pipeline)
    if token.learned_embeds.shape[1] != dim:
        raise UnknownTokenError(
            f"{token.placeholder} has rows of {token.learned_embeds.shape[1]} numbers, but this model's text encoder "
            f"reads {dim}: use the model that the token was learned on."
        )
    learned_on = token.card.get("vocabulary_sha256")
    if learned_on is not None and learned_on != vocabulary_sha256(pipeline):
        raise UnknownTokenError(
            f"{token.placeholder} was learned on another model, whose words have other embeddings: use that model, or "
            f"run `hfi invert` on this one."
        )


_vocabulary_sha256: weakref.WeakKeyDictionary[torch.nn.Module, str] = weakref.WeakKeyDictionary()


def vocabulary_sha256(pipeline: Pipeline) -> str:
    """Hash of the embeddings of the model's own words, which no eraser changes; hashed once for each text encoder."""
    cached = _vocabulary_sha256.get(pipeline.text_encoder)
    if cached is None:
        digest = hashlib.sha256()
        for tokenizer, encoder in zip(tokenizers(pipeline), text_encoders(pipeline), strict=True):
            words = encoder.get_input_embeddings().weight.detach()[: tokenizer.vocab_size]
            digest.update(words.cpu().float().contiguous().numpy().tobytes())
        cached = _vocabulary_sha256[pipeline.text_encoder] = digest.hexdigest()
    return cached


def add_tokens_(pipeline: Pipeline, tokens: Sequence[ConceptToken]) -> None:
    """Add tokens to the pipeline's tokenizer and text encoder in place, as `pipe.load_textual_inversion` would."""
    for token in tokens:
        check_token_fits(pipeline, token)
        if token.placeholder in pipeline.tokenizer.get_vocab():
            raise UnknownTokenError(f"{token.placeholder} is already a word of this model: choose another placeholder.")
        encoders = text_encoders(pipeline)
        widths = [encoder.get_input_embeddings().weight.shape[1] for encoder in encoders]
        parts = token.learned_embeds.split(widths, dim=1)
        for rows, tokenizer, encoder in zip(parts, tokenizers(pipeline), encoders, strict=True):
            pipeline.load_textual_inversion({token.placeholder: rows}, tokenizer=tokenizer, text_encoder=encoder)


# ---------------------------------------- encoding without changing the pipeline


@dataclass(frozen=True)
class SplicedPrompts:
    """Tokenized prompts and where learned rows take the place of words.

    Attributes:
        token_ids: Ordinary ids; some ordinary id stands where a learned row will be.
        row_ids: Index into the learned rows, or NO_ROW.
    """

    token_ids: Int[Tensor, "prompts tokens"]
    row_ids: Int[Tensor, "prompts tokens"]


def tokenize_spliced(pipeline: Pipeline, prompts: Sequence[str], rows_of: dict[str, Sequence[int]]) -> SplicedPrompts:
    """Tokenize prompts in which placeholders stand for learned rows.

    Args:
        rows_of: For each placeholder, the indices of its rows in order.
    """
    tokenizer, length = pipeline.tokenizer, pipeline.tokenizer.model_max_length
    split = re.compile("|".join(f"({re.escape(name)})" for name in sorted(rows_of, key=len, reverse=True)) or r"(?!)")
    all_ids, all_rows = [], []
    for prompt in prompts:
        ids, rows = [tokenizer.bos_token_id], [NO_ROW]
        for piece in filter(None, split.split(prompt)):
            learned = list(rows_of.get(piece, ()))
            words = [STAND_IN_ID] * len(learned) or tokenizer(piece, add_special_tokens=False).input_ids
            ids += words
            rows += learned or [NO_ROW] * len(words)
        ids, rows = [*ids[: length - 1], tokenizer.eos_token_id], [*rows[: length - 1], NO_ROW]
        all_ids.append(ids + [tokenizer.pad_token_id] * (length - len(ids)))
        all_rows.append(rows + [NO_ROW] * (length - len(rows)))
    return SplicedPrompts(torch.tensor(all_ids), torch.tensor(all_rows))


def encode_spliced(
    pipeline: Pipeline, prompts: SplicedPrompts, rows: Float[Tensor, "rows dim"]
) -> Float[Tensor, "prompts tokens dim"]:
    """Prompt embeddings with learned rows spliced in; gradients reach `rows` and nothing else."""
    with spliced_rows(pipeline, rows, prompts.row_ids.to(rows.device)):
        return encode_token_ids(pipeline, prompts.token_ids)


@torch.no_grad()
def encode_prompts_with_tokens(
    pipeline: Pipeline, prompts: Sequence[str], tokens: Sequence[ConceptToken]
) -> Float[Tensor, "prompts tokens dim"]:
    """`hfi.pipelines.encode_prompts` for prompts with placeholders, without adding them to the pipeline.

    Raises:
        InvalidInputError: There is no prompt.
        UnknownTokenError: A token was learned for a text encoder of another width.
    """
    if not prompts:
        raise InvalidInputError("No prompt was given: give at least one.")
    for token in tokens:
        check_token_fits(pipeline, token)
    rows_of, first = {}, 0
    for token in tokens:
        rows_of[token.placeholder] = range(first, first + len(token.learned_embeds))
        first += len(token.learned_embeds)
    device = pipeline.text_encoder.device
    rows = torch.cat(
        [torch.zeros(1 if not tokens else 0, embedding_width(pipeline)), *(token.learned_embeds for token in tokens)]
    ).to(device)
    return encode_spliced(pipeline, tokenize_spliced(pipeline, prompts, rows_of), rows)
