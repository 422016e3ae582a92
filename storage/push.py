"""Sending an export folder to the Hub: private unless the repository's name is typed out for making it public."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from storage.errors import HFIError, InvalidInputError
from storage.import_export import check_export


class Hub(Protocol):
    """The part of huggingface_hub.HfApi that is needed."""

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> Any: ...
    def repo_info(self, repo_id: str, *, repo_type: str) -> Any: ...
    def upload_folder(self, *, repo_id: str, folder_path: str, repo_type: str, commit_message: str) -> Any: ...


def push_export(folder: Path | str, repository: str, *, typed_for_public: str = "", hub: Hub | None = None) -> str:
    """Upload exactly the bytes of an export folder.

    The token comes from the environment (HF_TOKEN) or a Hub login, and is never stored, shown or logged.

    Args:
        repository: "owner/name" of the dataset repository; made private if it isn't there.
        typed_for_public: the same name, typed again, to allow a repository that everybody can read.
        hub: the Hub's interface; default: huggingface_hub.

    Returns:
        The dataset's address.

    Raises:
        InvalidInputError: the folder is not a whole export, the name is not "owner/name", or the repository is public.
        HFIError: the Hub refused.
    """
    manifest = check_export(Path(folder))
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise InvalidInputError(f"{repository!r} is not a repository name. Write it as owner/name.")
    if typed_for_public and typed_for_public != repository:
        raise InvalidInputError(
            f"To make it public, type its name {repository!r}; got {typed_for_public!r}. Nothing was sent."
        )
    is_public = typed_for_public == repository
    hub = hub or _default_hub()
    try:
        hub.create_repo(repository, repo_type="dataset", private=not is_public, exist_ok=True)
        is_private = bool(hub.repo_info(repository, repo_type="dataset").private)
        if not is_private and not is_public:
            raise InvalidInputError(
                f"The repository {repository!r} exists and is public. Nothing was sent. Choose another one, or type "
                "its name to allow it."
            )
        message = f"Snapshot {manifest['snapshot'][:12]}"
        place = str(folder)
        hub.upload_folder(repo_id=repository, folder_path=place, repo_type="dataset", commit_message=message)
    except HFIError:
        raise
    except Exception as error:
        # The Hub's own messages may quote request headers, so only the kind of error is passed on.
        raise HFIError(
            f"The Hub did not take {repository!r} ({type(error).__name__}). Check the network, and that HF_TOKEN may "
            "write there; the export folder is whole, push it again."
        ) from None
    return f"https://huggingface.co/datasets/{repository}"


def _default_hub() -> Hub:
    from huggingface_hub import HfApi

    hub: Hub = HfApi()
    return hub
