"""What kind of disk a store lies on: one that forgets everything is refused, one across a network gets no WAL.

Linux tells the kind in ``/proc/self/mountinfo``; elsewhere every disk is taken for a lasting local one.
"""

from __future__ import annotations

import os
from pathlib import Path

from storage.errors import EphemeralDiskError

ALLOW_VARIABLE = "HFI_ALLOW_EPHEMERAL"
SPACE_VARIABLE = "SPACE_ID"  # set in every Hugging Face Space, whose own disk is emptied at each restart
MEMORY_KINDS = frozenset({"tmpfs", "ramfs"})
LAYER_KINDS = frozenset({"overlay", "aufs"})
# SQLite's write-ahead log needs memory shared between all processes that have the file open, so one machine.
NETWORK_KINDS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "lustre", "beegfs", "gpfs", "glusterfs", "afs"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.gcsfuse", "fuse.s3fs", "fuse.rclone", "fuse.mount-s3"}
)
MOUNT_TABLE = Path("/proc/self/mountinfo")


def disk_kind(path: Path, mount_table: Path = MOUNT_TABLE) -> str:
    """The kind of file system that ``path`` lies (or will lie) on, as Linux names it; "" if it can't be told."""
    there = path.absolute()
    while not there.exists():
        there = there.parent
    device = there.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = mount_table.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:  # number, parent, major:minor, root, place, options, [fields], "-", kind, source, options
        before, _, after = line.partition(" - ")
        if before.split(" ")[2] == wanted:
            return after.split(" ")[0]
    return ""


def is_allowed_by_environment() -> bool:
    """Whether the environment says that a disk which forgets is meant."""
    return os.environ.get(ALLOW_VARIABLE, "").strip().lower() in ("1", "true", "yes", "on")


def why_ephemeral(kind: str) -> str:
    """Why what is written to a disk of that kind will be gone, "" if it will stay."""
    if kind in MEMORY_KINDS:
        return f"is in memory ({kind}) and empty after the next restart"
    if kind in LAYER_KINDS and os.environ.get(SPACE_VARIABLE):
        return f"is a Space's own disk ({kind}), which is emptied at each restart; persistent storage is at /data"
    return ""


def assert_lasting(path: Path, kind: str) -> None:
    """Refuse a store on a disk that forgets.

    Raises:
        EphemeralDiskError: what is written there would be lost without a word.
    """
    reason = why_ephemeral(kind)
    if reason:
        raise EphemeralDiskError(
            f"The store {str(path)!r} {reason}: judgments written there would be lost. Choose a folder on a lasting "
            f"disk or, if losing them is what you want, say so: `hfi --allow-ephemeral ...` or {ALLOW_VARIABLE}=1."
        )
