"""`hfi export-model`: a changed model in a format that others read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, get_args

import typer

from hfi.cli_options import takes_config
from hfi.config import ExportConfig
from hfi.errors import ConfigError
from hfi.progress import build_progress

FORMATS: tuple[str, ...] = get_args(ExportConfig.model_fields["format"].annotation)


def parse_formats(names: Sequence[str], device: str = "auto") -> list[ExportConfig]:
    """What `--save` asks for, checked before anything is trained.

    Raises:
        ConfigError: there is no such format.
    """
    for name in names:
        if name not in FORMATS:
            raise ConfigError(f"--save is {name!r}, but must be one of {', '.join(FORMATS)}.")
    return [ExportConfig.model_validate({"format": name, "device": device}) for name in dict.fromkeys(names)]


def register(app: typer.Typer, panel: str) -> None:
    """Add the command to the command line."""

    @app.command("export-model", rich_help_panel=panel)
    @takes_config(ExportConfig)
    def export_model(
        config: ExportConfig,
        source: Annotated[
            str, typer.Argument(metavar="SOURCE", help="Run of `hfi erase`, 'latest', a model folder or a delta file.")
        ] = "latest",
        out: Annotated[
            Path | None, typer.Option("--out", metavar="PATH", help="What to write; default: named after the source.")
        ] = None,
        store: Annotated[
            Path,
            typer.Option("--store", envvar="HFI_STORE", metavar="FOLDER", help="Folder of images, judgments and runs."),
        ] = Path("hfi-store"),
        project: Annotated[
            str, typer.Option("--project", metavar="NAME", help="Project within the store.")
        ] = "default",
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    ) -> None:
        """Save a changed model as a folder, one file, its difference or a LoRA; checked, and with a card."""
        from hfi.jobs import stages
        from storage import Store

        is_path = source != "latest" and Path(source).exists()
        opened = Store.open(store, create=False) if store.exists() or not is_path else None
        try:
            typer.echo(stages.run_export_model(opened, config, source, out, project, build_progress(quiet)))
        finally:
            if opened is not None:
                opened.close()
