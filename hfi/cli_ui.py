"""`hfi ui`: the pages in the browser. The one module of this package that reaches into `ui`, and only when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer, panel: str) -> None:
    """Add the command to ``app``."""
    app.command("ui", rich_help_panel=panel)(ui)


def ui(
    store: Annotated[
        Path,
        typer.Option("--store", envvar="HFI_STORE", metavar="FOLDER", help="Folder of images, judgments and runs."),
    ] = Path("hfi-store"),
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 = all networks.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 = any free one.")] = 7860,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Host name under which browsers may ask; repeatable.")
    ] = None,
    is_https: Annotated[bool, typer.Option("--https", help="Behind a proxy that speaks HTTPS: safer cookies.")] = False,
    import_folder: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Folder of this computer that may be imported from; repeatable."),
    ] = None,
    has_owner_link: Annotated[
        bool,
        typer.Option("--owner-link", help="Print a one-time link for another owner, should the first be locked out."),
    ] = False,
    has_demo: Annotated[bool, typer.Option("--demo/--no-demo", help="Fill an empty store with a demo.")] = True,
    has_worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="Do jobs that were sent with --background, beside the pages.")
    ] = True,
) -> None:
    """Judge pictures in the browser, set up projects and watch their quality."""
    from ui.serve import serve
    from ui.settings import UiSettings

    settings = UiSettings(
        host=host,
        port=port,
        allowed_hosts=tuple(allow_host or ()),
        is_https=is_https,
        has_demo=has_demo,
        has_worker=has_worker,
        import_folders=tuple(str(folder.absolute()) for folder in import_folder or ()),
    )
    serve(store, settings, typer.echo)
