"""Settings of the pages, frozen for the life of the process."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

KIB = 1024
MIB = 1024 * KIB
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")


class UiSettings(BaseModel):
    """How the pages are served; the defaults serve this computer alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 = every network this computer is in.")
    port: int = Field(7860, ge=0, le=65535, description="Port to listen on; 0 = any free one.")
    allowed_hosts: tuple[str, ...] = Field((), description="Further host names under which browsers may ask.")
    is_https: bool = Field(False, description="Served behind a proxy that speaks HTTPS: cookies are for HTTPS only.")
    import_folders: tuple[str, ...] = Field((), description="Folders of this computer that may be imported from.")
    session_days: float = Field(14.0, gt=0, le=90, description="Days until one must log in again.")
    has_demo: bool = Field(True, description="Fill a store without projects with a demo project.")
    has_owner_link: bool = Field(False, description="Print a one-time link for another owner.")
    has_worker: bool = Field(False, description="Start a worker for jobs beside the pages.")
    max_payload_bytes: int = Field(16 * KIB, description="Longest request of the own routes.")
    max_batch_bytes: int = Field(64 * KIB, description="Longest batch of judgments (50 of them).")
    max_form_bytes: int = Field(512 * KIB, description="Longest request of a page's function (guidelines are long).")
    max_upload_bytes: int = Field(64 * MIB, description="Longest upload.")
    # By then the first answers are out; from then on the interpreter is busy importing Gradio for seconds.
    shell_delay_seconds: float = Field(1.5, ge=0, description="Seconds until Gradio's pages begin to be built.")
    num_store_threads: int = Field(8, ge=1, le=64, description="Store calls at once; each thread has a connection.")

    @property
    def trusted_hosts(self) -> frozenset[str]:
        """The host names (without port) under which the pages answer."""
        own = () if self.host in ("0.0.0.0", "::") else (self.host,)
        return frozenset(name.lower() for name in (*LOCAL_HOSTS, *own, *self.allowed_hosts))

    @property
    def cookie_name(self) -> str:
        """Name of the session's cookie; browsers tie the first form to this very host."""
        return "__Host-hfi_session" if self.is_https else "hfi_session"
