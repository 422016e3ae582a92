"""Configurations, one frozen pydantic model per job kind; options, page hints and tables are made from the field texts.

Importing this module never imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Device = Literal["auto", "cpu", "cuda"]
EraseMethod = Literal["sdd", "esd", "abo", "closed_form", "robust"]
Sampler = Literal["ddim", "dpm-solver++"]
Precision = Literal["float32", "bfloat16"]
AskNext = Literal["disagreement", "doubt", "unchanged"]
DetectorName = Literal["auto", "judge", "score", "opennsfw", "q16", "nudenet"]
SAMPLER_NAMES: dict[Sampler, str] = {"ddim": "DDIM", "dpm-solver++": "DPM-Solver++ 2M"}  # as protocols say them
SCHEDULERS: dict[Sampler, str] = {"ddim": "DDIMScheduler", "dpm-solver++": "DPMSolverMultistepScheduler"}  # diffusers
MAX_SEED = 2**63 - 1  # what the generators take
MAX_STEPS = 1_000_000  # far beyond any use; what is larger is a slip of the finger
MAX_PICTURES = 100_000  # of one job
MAX_SIDE_PX = 4096


class JobConfig(BaseModel):
    """Base of every job's configuration: frozen, no unknown fields, JSON in and out."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SamplerConfig(JobConfig):
    """How a picture is sampled from a model; part of every protocol."""

    sampler: Sampler = Field("ddim", description="Which sampler; dpm-solver++ (2M) needs about half the steps of ddim.")
    num_inference_steps: int = Field(25, ge=1, le=1000, description="Sampler steps per picture.")
    guidance_scale: float = Field(3.0, ge=1.0, le=50.0, description="Classifier-free guidance; 1.0 means none.")
    batch_size: int = Field(32, ge=1, le=1024, description="Pictures sampled together; does not change them.")


class GenerateConfig(SamplerConfig):
    """Prompts x seeds -> pictures with full provenance."""

    model: str = Field("mini", description="Model folder, .safetensors file or Hub id of a Stable Diffusion 1.x, 2.x or XL model; mini = the embedded one.")
    negative_prompt: str = Field("", max_length=2000, description="What to steer away from.")
    height_px: int | None = Field(None, ge=8, le=MAX_SIDE_PX, description="Picture height; default: the model's own.")
    width_px: int | None = Field(None, ge=8, le=MAX_SIDE_PX, description="Picture width; default: the model's own.")
    device: Device = Field("auto", description="Where to compute; auto takes a GPU when there is one.")
    guard: Literal["none", "negative", "sld"] = Field("none", description="Hold a concept back while sampling: as a negative prompt, or by Safe Latent Diffusion; weights stay as they are.")
    guard_text: str = Field("", max_length=2000, description="What is held back, in words; placeholders of --guard-tokens may stand in it.")
    guard_tokens: str = Field("", description="Concept tokens that are held back: a folder or file of them, an inversion's run id, or 'latest'.")
    sld_level: Literal["weak", "weak-diffusers", "medium", "strong", "max"] = Field("medium", description="SLD's published settings; 'weak' exists with the authors' scale (200) and with that of diffusers (20).")
    sld_warmup_steps: int | None = Field(None, ge=0, description="SLD: steps before anything is held back; default: by level.")
    sld_guidance_scale: float | None = Field(None, ge=0, description="SLD: s_S, how fast nearness to the concept counts fully; default: by level.")
    sld_threshold: float | None = Field(None, description="SLD: lambda, how far from the concept still counts as near; default: by level.")
    sld_momentum_scale: float | None = Field(None, ge=0, le=1, description="SLD: s_m, how much of the momentum is added; default: by level.")
    sld_momentum_beta: float | None = Field(None, ge=0, lt=1, description="SLD: beta_m, how much of the momentum is kept; default: by level.")


def _left_out_at(default: object) -> Callable[[Any], bool]:
    """Leaves a field at its default out of what a run is known by, so that runs from before there was a choice are
    found."""
    return lambda value: bool(value == default)


class ScoreConfig(JobConfig):
    """Score model: MLP ensemble on CLIP image embeddings (HFI, arXiv 2407.21032)."""

    clip: str = Field("mini", description="Folder of the CLIP model whose image side embeds the pictures; mini = the embedded one.")
    num_members: int = Field(5, ge=1, le=50, description="Ensemble members; their spread is the uncertainty.")
    hidden_dim: int = Field(256, ge=8, le=16_384, description="Width of the hidden layer.")
    dropout: float = Field(0.5, ge=0.0, lt=1.0, description="Dropout rate while training.")
    learning_rate: float = Field(1e-3, gt=0, description="AdamW learning rate.")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW weight decay.")
    max_epochs: int = Field(100, ge=1, le=MAX_STEPS, description="Upper bound on passes over the training split.")
    patience_epochs: int = Field(10, ge=1, description="Stop after this many epochs without a better validation loss.")
    held_out_fraction: float = Field(0.2, gt=0, lt=0.9, description="Share of images (split by prompt) kept for the reported AUROC.")
    ask_next: AskNext = Field("disagreement", exclude_if=_left_out_at("disagreement"), description="Which pictures that nobody judged people are asked about first: where the members disagree, where the score doubts (p near 0.5), or as before.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of splits and initial weights.")
    device: Device = Field("auto", description="Where to compute.")


class InvertConfig(JobConfig):
    """Reward-weighted textual inversion: flagged images -> concept tokens."""

    model: str = Field("mini", description="Model whose text encoder learns the token.")
    placeholder: str = Field("<concept>", description="Name of the concept token; several become <concept-1>, <concept-2>, ...")
    initializer: str = Field("", description="Word the token starts from, or several separated by commas; default: the common word of the prompts of the images, else the mean.")
    start: Literal["word", "encoder_output"] = Field("word", description="Start from the initializer's embedding, or from the text encoder's output for it (CrossInit).")
    templates: Literal["plain", "prompts"] = Field("plain", exclude_if=_left_out_at("plain"), description="Prompts around the token while it is learned: 'a <concept>' and the like, or each picture's own prompt with the token in place of the words that only flagged prompts say. The second is for a style, and is erased in the same prompts.")
    num_concepts: int | Literal["auto"] = Field("auto", description="Tokens, one a cluster of flagged images; auto chooses by measured coverage.")
    num_vectors: int = Field(1, ge=1, le=16, description="Embedding rows of each token.")
    top_k: int = Field(256, ge=1, description="Images with the highest concept score that are used.")
    num_train_steps: int = Field(80, ge=0, le=MAX_STEPS, description="Optimizer steps (all clusters together in a batch).")
    batch_size: int = Field(4, ge=1, le=1024, description="Images per step and token.")
    learning_rate: float = Field(2e-3, gt=0, description="AdamW learning rate of the placeholder rows.")
    search: Literal["free", "sphere"] = Field("free", description="Learn the rows freely (AdamW), or their direction alone at the vocabulary's mean length (DTI).")
    sphere_learning_rate: float = Field(0.01, gt=0, description="Learning rate of the directions (search = sphere).")
    sphere_pull: float = Field(1e-4, ge=0, description="Pull of the directions to the initializer's (search = sphere).")
    averaged_share: float = Field(0.0, ge=0, le=1, exclude_if=_left_out_at(0), description="Last part of the steps whose rows are averaged into the token; 0 = the last step's. With 0.5, half the steps at twice the rate give the same.")
    weighting: Literal["sample", "loss"] = Field("sample", description="Draw images in proportion to their weight, or weight the loss; same expectation.")
    stopping: Literal["dvar", "steps"] = Field("dvar", description="Stop when the loss on a fixed batch has settled (DVAR), or after all steps.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of noise, timesteps, clusters and image order.")
    precision: Precision = Field("float32", exclude_if=_left_out_at("float32"), description="Arithmetic of the UNet; bfloat16 is for GPUs that have it. Weights stay in float32.")
    device: Device = Field("auto", description="Where to compute.")


class EraseConfig(JobConfig):
    """Take a concept out of the weights: the method, what is erased, what is kept, and the options of each method.

    Options that start with a method's name belong to it alone; to set one with another method is an error.
    """

    model: str = Field("mini", description="Model to change; the original is never overwritten.")
    method: EraseMethod = Field("sdd", description="Eraser: self-distillation, ESD, All but One, closed form (seconds, no training), or rounds of erasing and inverting again.")
    # what is erased, what it becomes, what is kept
    targets: Literal["tokens", "prompts", "both", "text"] = Field("both", description="Erase the concept tokens, the flagged images' own prompts, both, or a concept in words.")
    text: str = Field("", max_length=2000, description="The concept in words (targets = text); several are separated by semicolons.")
    allow_weak_tokens: bool = Field(False, description="Erase also with tokens that do not reproduce the concept in their previews.")
    anchor: Literal["empty", "rest", "swap", "concept"] = Field("swap", description="What a target is mapped to: the empty prompt, the rest of its own prompt (the words that only flagged prompts say are taken out), its own prompt with words of retained prompts in their place, or another concept. Targets that are joined, and those none of whose words tells the concept, are mapped to the empty prompt instead of either of their own.")
    anchor_concept: str = Field("", max_length=2000, description="The concept that takes the target's place (anchor = concept), in words.")
    retain_text: str = Field("", max_length=20000, description="Prompts that must not change, separated by semicolons; default: those of the unflagged images.")
    retain_weight: float = Field(1.0, ge=0, description="Weight of keeping the original's prediction on unflagged prompts; 0 = off.")
    retain_ambiguous: bool = Field(False, description="Retain also unflagged prompts that say words of the flagged ones; the model failed to draw the concept there, and holding them holds the concept.")
    unjudged: Literal["ignore", "by_score"] = Field("ignore", exclude_if=_left_out_at("ignore"), description="Pictures of the project that nobody judged: leave them out, or erase and retain them too, where score and prompt agree.")
    # training, of all methods but closed_form
    latents: Literal["noised", "rollout"] = Field("noised", description="z_t from noising the flagged images, or from the teacher's own sampling.")
    timesteps: Literal["uniform", "beta"] = Field("uniform", description="Training timesteps: uniform or Beta(3,3) over the trajectory.")
    trainable: Literal["cross_attention", "cross_attention_kv", "self_attention", "non_cross_attention", "full"] = Field("cross_attention", description="Which weights of the UNet may change.")
    num_train_steps: int = Field(300, ge=0, le=MAX_STEPS, description="Optimizer steps.")
    batch_size: int = Field(12, ge=1, le=1024, description="Latents per step for the erased concept.")
    retain_batch_size: int = Field(0, ge=0, le=1024, exclude_if=_left_out_at(0), description="Latents per step for what is retained; 0 = as many as for the concept.")
    learning_rate: float = Field(2e-4, gt=0, description="AdamW learning rate.")
    negative_guidance: float = Field(1.0, ge=0, description="eta: target = null - eta * (concept - null) of the original; 0 = the SDD target.")
    ema_decay: float = Field(0.98, ge=0, lt=1, description="Decay of the teacher, the average of the student that is saved (sdd).")
    max_gradient_norm: float = Field(1.0, gt=0, description="Gradient clipping.")
    sampling_guidance_scale: float = Field(3.0, ge=0, description="s_g of the teacher's sampling (latents = rollout).")
    bank_batches: int = Field(16, ge=1, description="Batches of training points made at once, with what the original predicts there.")
    bank_passes: int = Field(4, ge=1, description="Times each point is used before new ones are made; 1 = published, more saves the original's forward passes.")
    checkpoint_every_n_steps: int = Field(50, ge=1, description="Steps between checkpoints; a restart goes on from the last.")
    # one method each
    sdd_prompts: Literal["own", "sample_one", "sample_joint"] = Field("own", description="Each target by itself; or sample with one target and train all joined (the paper's text); or sample with all joined and train one (its code).")
    sdd_target: Literal["reference", "teacher", "student"] = Field("reference", description="Whose prediction is the target: the frozen original, the average, or the student (gradient stopped).")
    esd_variant: Literal["x", "u", "strict"] = Field("x", description="Weights that ESD trains: cross-attention (x), all but cross-attention (u), its keys and values (strict).")
    esd_erase_from: str = Field("", max_length=2000, description="Erase the target from this concept only, which is kept otherwise.")
    abo_null_weight: float = Field(1.0, ge=0, description="lambda: weight of holding the unconditional prediction in place.")
    closed_form_rounds: int = Field(3, ge=0, le=50, description="Rounds that find and erase what still evokes the concept (RECE); 0 = one edit (UCE).")
    closed_form_regularization: float = Field(0.1, gt=0, description="lambda: pull to the weights before the edit.")
    closed_form_states: Literal["all", "tail", "last"] = Field("all", description="States of a target's words that are edited: all, from its last word on, or the last word's alone.")
    robust_method: Literal["sdd", "esd", "abo", "closed_form"] = Field("sdd", description="Eraser of each round.")
    robust_rounds: int = Field(3, ge=1, le=20, description="Erasures; before each but the first the concept is inverted again on the erased model.")
    robust_invert_steps: int = Field(80, ge=0, le=MAX_STEPS, description="Optimizer steps of each inversion.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of noise, timesteps and order.")
    precision: Precision = Field("float32", exclude_if=_left_out_at("float32"), description="Arithmetic of the UNet; bfloat16 is for GPUs that have it. Weights stay in float32.")
    device: Device = Field("auto", description="Where to compute.")

    @model_validator(mode="after")
    def _check_sections(self) -> EraseConfig:
        """Refuse options of other methods, and words that are missing or of no use."""
        active = {self.method, self.robust_method} if self.method == "robust" else {self.method}
        for name, field in type(self).model_fields.items():
            owner = next((method for method in get_args(EraseMethod) if name.startswith(f"{method}_")), None)
            if owner is not None and owner not in active and getattr(self, name) != field.default:
                raise ValueError(f"{name} belongs to method {owner}, but the method is {self.method}: leave it out")
        for choice, wanted, text in (("targets", "text", "text"), ("anchor", "concept", "anchor_concept")):
            if (getattr(self, choice) == wanted) != bool(getattr(self, text).strip()):
                raise ValueError(f"{text} must be given if, and only if, {choice} is {wanted!r}")
        return self


class SimulateConfig(JobConfig):
    """Simulated annotators: they look through the eye at what was really drawn and err at stated rates."""

    concept: str = Field("weapon", description="What they object to: a group of the embedded world (weapon) or one of its styles (style-cartoon).")
    num_annotators: int = Field(3, ge=1, le=100, description="How many simulated people.")
    error_rate: float = Field(0.1, ge=0, lt=0.5, description="Share of pictures that each of them takes for the opposite, at random.")
    eye_threshold: float = Field(0.5, gt=0, lt=1, description="Probability from which the eye sees an object.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of their errors.")


class EvaluateConfig(SamplerConfig):
    """Measure concept rate and damage on held-out prompts and seeds, same seeds for every model."""

    model: str = Field("mini", description="The original model.")
    erased: str = Field("", description="The changed model: folder or run id; empty = the newest erased model of the project.")
    suite: str = Field("mini-weapons", description="Evaluation prompts: a named suite or a JSON file {concept: [...], others: [...]}.")
    num_concept_images: int = Field(200, ge=1, le=MAX_PICTURES, description="Pictures of concept prompts per model.")
    num_other_images: int = Field(200, ge=1, le=MAX_PICTURES, description="Pictures of all other prompts per model.")
    first_seed: int = Field(1_000_000, ge=0, le=MAX_SEED, description="First held-out seed; training never uses seeds from here on.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Level of the Wilson intervals.")
    protocol: str = Field("", description="A named protocol (mini-weapons, mini-weapons-quick, mini-weapons-large, mini-style-cartoon) or the protocol.json of an earlier evaluation; it decides all settings it knows.")
    detector: DetectorName = Field("auto", description="Who judges: auto = the embedded world's judge, else the project's score model, else opennsfw.")
    detector_path: str = Field("", description="Folder or file of the detector's weights (q16: CLIP ViT-L/14 with q16.safetensors in it).")
    neighbours: str = Field("", description="Concepts that must stay, by commas, e.g. 'axe, key'; measured from near to far.")
    clip: str = Field("", description="CLIP folder for CLIP score, layout and kernel distance; empty = the model's own, if it has one.")
    lpips_weights: str = Field("", description="File of AlexNet weights for LPIPS (torchvision's state dict); empty = LPIPS is not measured.")
    inception_weights: str = Field("", description="File of Inception weights for FID (torch-fidelity's); empty = FID is not measured.")
    device: Device = Field("auto", description="Where to compute.")


class ExportConfig(JobConfig):
    """Save a changed model in a format that others read; loaded again and compared before it is called done."""

    format: Literal["folder", "single-file", "delta", "lora"] = Field("folder", description="Diffusers folder; one file in kohya/A1111 layout; changed weights of the UNet by name, as ESD publishes; or LoRA.")
    base: str = Field("", description="The original model; default: the one that the run or the saved folder names.")
    dtype: Literal["float32", "float16"] = Field("float32", description="Precision of the saved weights.")
    lora_rank: int = Field(32, ge=1, le=1024, description="LoRA: rank of each layer's change; the error that is left is stated.")
    device: Device = Field("auto", description="Where to compute.")


class AttackConfig(SamplerConfig):
    """Try to get an erased concept back, with a stated budget; rates before and after the attempt."""

    model: str = Field("mini", description="The original model; its pictures of the concept are the attacks' targets.")
    erased: str = Field("", description="The changed model: folder or run id; empty = the newest erased model of the project.")
    attack: Literal["all", "reinversion", "prefix", "synonyms", "latents"] = Field("all", description="Learn a new token (CCE), search a prefix (as UnlearnDiffAtk), other words, or inverted latents without words (as TINA).")
    suite: str = Field("mini-weapons", description="Whose concept prompts are attacked: a named suite or a JSON file {concept: [...], others: [...]}.")
    num_images: int = Field(48, ge=1, le=MAX_PICTURES, description="Concept prompts attacked; those whose original picture does not show the concept are left out.")
    first_seed: int = Field(1_000_000, ge=0, le=MAX_SEED, description="First held-out seed, as in the evaluation.")
    num_prefix_tokens: int = Field(5, ge=1, le=16, description="prefix: tokens before the prompt.")
    num_iterations: int = Field(40, ge=1, le=MAX_STEPS, description="prefix: steps of the search.")
    num_tries: int = Field(4, ge=1, le=40, description="prefix: prefixes drawn along the search; one hit is a success. As many random ones are the control.")
    learning_rate: float = Field(0.01, gt=0, description="prefix: step size.")
    num_train_steps: int = Field(80, ge=1, le=MAX_STEPS, description="reinversion: optimizer steps.")
    num_vectors: int = Field(1, ge=1, le=16, description="reinversion: embedding rows of the new token.")
    prompts: str = Field("", description="synonyms: text file of prompts, one a line; needed outside the embedded world.")
    detector: DetectorName = Field("auto", description="Who judges, as in the evaluation.")
    detector_path: str = Field("", description="Folder or file of the detector's weights.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Level of the Wilson intervals.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of the search and of the new token.")
    device: Device = Field("auto", description="Where to compute.")


class I2PConfig(JobConfig):
    """The I2P test bed: inappropriate pictures by Q16 or an exposed part of a body, ten a prompt."""

    model: str = Field("mini", description="Model to test: folder, Hub id or mini.")
    prompts: str = Field(..., description="CSV file of I2P with its published columns.")
    images_per_prompt: int = Field(10, ge=1, le=1000, description="Pictures of each prompt, all from the prompt's own seed.")
    sample: int = Field(0, ge=0, description="Prompts of a stratified sample; 0 = all.")
    num_inference_steps: int = Field(50, ge=1, le=1000, description="Sampler steps per picture (DDIM).")
    guidance: Literal["own", "7.5"] = Field("7.5", description="One guidance for all prompts, or each prompt's own.")
    batch_size: int = Field(8, ge=1, le=1024, description="Pictures sampled together; does not change them.")
    detectors: str = Field("q16,nudenet", description="Detectors by commas; a picture counts when any of them flags it.")
    detector_path: str = Field("", description="q16: CLIP ViT-L/14 folder with q16.safetensors in it.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Level of the intervals.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of the sample and of the bootstraps.")
    device: Device = Field("auto", description="Where to compute.")


class JudgeAgainConfig(JobConfig):
    """Ask people, blind, which of two pictures of the same words and seed shows the concept more."""

    others: str = Field("", description="Evaluations to compare, run ids by commas; empty = the newest. The first gives the original.")
    part: Literal["concept", "others"] = Field("concept", description="Concept prompts (which shows it more?) or all others (which is better?).")
    num_pairs: int = Field(60, ge=1, le=MAX_PICTURES, description="Pairs for each two models.")
    annotators_per_item: int = Field(3, ge=1, le=100, description="People who judge each pair.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of the choice and of the order.")


def config_to_json(config: JobConfig) -> str:
    """Canonical JSON of a configuration: sorted keys, no spaces; equal configurations give equal text."""
    import json

    return json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def resolve_model_folder(model: str) -> str:
    """Where a model name points: `mini` is the embedded folder, everything else is returned as it is."""
    if model == "mini":
        return str(Path(__file__).parent / "mini" / "weights")
    return model
