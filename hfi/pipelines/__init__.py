"""Text-to-image pipelines: load, encode prompts, predict noise, sample, decode.

The only room that knows model families; everything else sees prompt embeddings, latents and noise predictions:
Stable Diffusion 1.x / 2.x (epsilon and v-prediction) and Stable Diffusion XL (two text encoders).
"""

from hfi.model_folder import model_sha256
from hfi.pipelines.denoising import (
    Guide,
    StepCallback,
    add_noise,
    computing_in,
    cross_attention_states,
    guided_noise,
    initial_latents,
    noise_from_velocity,
    predict_noise,
    sample_guided,
    sample_latents,
)
from hfi.pipelines.images import decode_latents, encode_images
from hfi.pipelines.loading import (
    Pipeline,
    fetch_model_folder,
    is_xl,
    load_pipeline,
    pipeline_class,
    quiet_loading,
    resolve_device,
    unpack_single_file,
    with_parts,
)
from hfi.pipelines.prompts import (
    NO_ROW,
    embedding_table,
    embedding_width,
    encode_null_prompt,
    encode_prompts,
    encode_token_ids,
    spliced_rows,
    text_encoders,
    tokenize,
    tokenizers,
)

__all__ = [
    "NO_ROW",
    "Guide",
    "Pipeline",
    "StepCallback",
    "add_noise",
    "computing_in",
    "cross_attention_states",
    "decode_latents",
    "embedding_table",
    "embedding_width",
    "encode_images",
    "encode_null_prompt",
    "encode_prompts",
    "encode_token_ids",
    "fetch_model_folder",
    "guided_noise",
    "initial_latents",
    "is_xl",
    "load_pipeline",
    "model_sha256",
    "noise_from_velocity",
    "pipeline_class",
    "predict_noise",
    "quiet_loading",
    "resolve_device",
    "sample_guided",
    "sample_latents",
    "spliced_rows",
    "text_encoders",
    "tokenize",
    "tokenizers",
    "unpack_single_file",
    "with_parts",
]
