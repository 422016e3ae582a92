"""Save a changed model for others: from a run's model, a folder or a delta, in a chosen format, with a card."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfi.config import ExportConfig
from hfi.errors import ConfigError, ConflictError, InvalidInputError, NotFoundError
from hfi.files import write_text_atomically
from hfi.jobs.model_card import CardFacts, make_model_card
from hfi.jobs.pictures import local_model_folder
from hfi.jobs.runs import latest_run
from hfi.model_folder import model_sha256
from hfi.progress import Progress
from storage import Store
from storage.records import Run
from storage.snapshot import load_snapshot

if TYPE_CHECKING:
    from hfi.erase.export import SavedModel
    from hfi.pipelines import Pipeline

ORIGIN_NAME = "hfi_model.json"
CARD_NAME = "README.md"
LATEST = "latest"
FIRST_LETTERS = 12  # of a hash, where a person reads it


@dataclass(frozen=True)
class _Source:
    """What is to be saved: a model folder or a delta, and what is known of where it comes from."""

    path: Path
    run: Run | None
    origin: dict[str, str]


def run_export_model(
    store: Store | None, config: ExportConfig, source: str, out: Path | None, project: str, progress: Progress
) -> str:
    """Save a changed model, load it again, compare, and only then say that it is done.

    Args:
        store: where runs are; None if there is no store, then `source` must be a folder or a delta.
        config: format and precision.
        source: an erasing run's id, `latest` (the newest of the project), a model folder, or a delta file.
        out: folder or file to write; default: a name made from the source, in the current folder.
        project: whose newest run is meant by `latest`.
        progress: told what is done.

    Returns:
        A sentence with the path and the measured difference.

    Raises:
        NotFoundError: there is no such run or folder.
        ConfigError: the format needs a base model, or its file name another ending.
        ConflictError: the target exists.
        InvalidInputError: a delta was made from another base model, or nothing changed.
    """
    found = _find_source(store, source, project)
    target = _target(config, out, found)
    if card_path(target, config.format).exists():
        raise ConflictError(f"{card_path(target, config.format)} exists already: choose another --out, or remove it.")
    base = config.base or found.origin.get("base_model", "")
    if not base and config.format in ("delta", "lora"):
        raise ConfigError(f"--format {config.format} saves a change: name the original model with --base.")
    from hfi.erase.export import export_model

    progress.start(f"save: {config.format}")
    pipeline, unet, base_sha256 = _load(found, base, config.device)
    origin = _origin(found, base, base_sha256)
    saved = export_model(
        pipeline, unet, target, config.format, dtype=config.dtype, lora_rank=config.lora_rank, origin=origin
    )
    facts = _card_facts(store, found, config, target, origin, saved, type(pipeline).__name__)
    _write_card(saved.path, config.format, facts, origin)
    progress.finish(str(saved.path))
    return _summary(saved)


# ---------------------------------------- what is saved


def _find_source(store: Store | None, source: str, project: str) -> _Source:
    path = Path(source)
    if path.is_dir() and source != LATEST:
        named = path / ORIGIN_NAME
        return _Source(path, None, json.loads(named.read_text(encoding="utf-8")) if named.is_file() else {})
    if path.is_file():
        return _Source(path, None, {})
    if store is None:
        raise NotFoundError(f"{source!r} is no model folder and no file, and there is no store to look for a run in.")
    run = latest_run(store, "erase", project) if source == LATEST else _get_run(store, source)
    if run is None or run.kind != "erase" or run.status != "done":
        raise NotFoundError(f"{source!r} is no finished erasing run of project {project!r}: run `hfi erase` first.")
    config = run.config.get("config", {})
    origin = {
        "base_model": str(config.get("model", "")),
        "base_model_sha256": str(run.inputs.get("model_sha256", "")),
        "method": str(config.get("method", "")),
        "snapshot": run.snapshot_hash,
        "run": run.id,
    }
    return _Source(store.artifact_dir(run.id) / "model", run, origin)


def _get_run(store: Store, run_id: str) -> Run:
    try:
        return store.get_run(run_id)
    except NotFoundError as error:
        raise NotFoundError(f"{run_id!r} is neither a model folder, nor a delta, nor a run: check the name.") from error


def _target(config: ExportConfig, out: Path | None, source: _Source) -> Path:
    suffix = "" if config.format == "folder" else ".safetensors"
    if out is not None:
        if out.suffix != suffix and suffix:
            raise ConfigError(f"--out is {out}, but --format {config.format} writes a file that ends in {suffix}.")
        return out
    stem = f"erased-{source.run.id}" if source.run else f"{source.path.name.removesuffix('.safetensors')}-saved"
    middle = {"delta": ".delta", "lora": ".lora"}.get(config.format, "")
    return Path(f"{stem}{middle}{suffix}")


def _load(source: _Source, base: str, device: str) -> tuple[Pipeline, Any, str]:
    """The original (or, where it is not known, the changed model itself), the changed UNet, and the original's hash."""
    from hfi.erase.delta import apply_delta_, is_delta
    from hfi.pipelines import load_pipeline

    folder = local_model_folder(base) if base else None
    base_sha256 = model_sha256(folder) if folder else ""
    named = source.origin.get("base_model_sha256", "")
    if named and base_sha256 and named != base_sha256:
        raise InvalidInputError(
            f"The model {source.path.name} was made from {named[:FIRST_LETTERS]}…, but {base} is "
            f"{base_sha256[:FIRST_LETTERS]}…: name with --base the model it was made from."
        )
    if source.path.is_file() and is_delta(source.path):
        if folder is None:
            raise ConfigError(f"{source.path} holds only what changed: name the original model with --base.")
        changed = load_pipeline(folder, device)
        source.origin.update(_named(apply_delta_(changed.unet, source.path, base_sha256)))
    else:
        changed = load_pipeline(local_model_folder(str(source.path)), device)
    pipeline = changed if folder is None else load_pipeline(folder, device)
    return pipeline, changed.unet, base_sha256


def _named(metadata: dict[str, str]) -> dict[str, str]:
    """What a file's metadata says of its origin."""
    return {name.removeprefix("hfi."): text for name, text in metadata.items() if name.startswith("hfi.")}


def _origin(source: _Source, base: str, base_sha256: str) -> dict[str, str]:
    """What the saved model names; a folder is named without where it lies on this computer."""
    named = Path(base).name if base and Path(base).exists() else base
    known = source.origin | {"base_model": named, "base_model_sha256": base_sha256}
    return {name: text for name, text in known.items() if text}


# ---------------------------------------- the card


def _card_facts(
    store: Store | None,
    source: _Source,
    config: ExportConfig,
    target: Path,
    origin: dict[str, str],
    saved: SavedModel,
    family: str,
) -> CardFacts:
    run = source.run
    measured = {"largest difference after loading": f"{saved.difference:.1e} (noise has a spread of 1)"}
    if saved.lora_error is not None and saved.prediction_error is not None:
        measured["rank of the LoRA"] = str(config.lora_rank)
        measured["share of the change in the weights that it leaves out"] = f"{100 * saved.lora_error:.1f} %"
        measured["share of the change in the predictions that it leaves out"] = f"{100 * saved.prediction_error:.1f} %"
    settings = {name: value for name, value in (run.config.get("config", {}) if run else {}).items() if name != "model"}
    return CardFacts(
        name=target.name, family=family, format=config.format, dtype=config.dtype,
        base=origin.get("base_model", ""), base_sha256=origin.get("base_model_sha256", ""),
        method=origin.get("method", ""), settings=settings, run_id=origin.get("run", ""),
        snapshot=load_snapshot(store, run.snapshot_hash) if store and run and run.snapshot_hash else None,
        unjudged=(run.metrics.get("unjudged_erased", 0), run.metrics.get("unjudged_retained", 0)) if run else (0, 0),
        evaluation=_newest_evaluation(store, run) if store and run else None, saved=measured,
    )  # fmt: skip


def _newest_evaluation(store: Store, run: Run) -> dict[str, Any] | None:
    """`evaluation.json` of the newest evaluation of the run's model, if there is one."""
    for found in reversed(store.list_runs(kind="evaluate", status="done")):
        file = store.artifact_dir(found.id) / "evaluation" / "evaluation.json"
        if found.metrics.get("erased_run") == run.id and file.is_file():
            content = json.loads(file.read_text(encoding="utf-8"))
            return {"protocol": content.get("protocol", {}), "figures": content.get("figures", {})}
    return None


def card_path(path: Path, format: str) -> Path:
    """Where the card of a saved model is."""
    return path / CARD_NAME if format == "folder" else path.with_suffix(".md")


def _write_card(path: Path, format: str, facts: CardFacts, origin: dict[str, str]) -> None:
    write_text_atomically(card_path(path, format), make_model_card(facts))
    if format == "folder":
        write_text_atomically(path / ORIGIN_NAME, json.dumps(origin, indent=1, sort_keys=True) + "\n")


def _summary(saved: SavedModel) -> str:
    text = f"Saved {saved.path}; loaded again, it differs by {saved.difference:.1e} at most on the fixed seeds."
    if saved.lora_error is not None and saved.prediction_error is not None:
        text += (
            f" The LoRA leaves out {100 * saved.lora_error:.1f} % of the change in the weights and "
            f"{100 * saved.prediction_error:.1f} % of the change in the predictions."
        )
    return text
