"""The product's one exception tree. Every message names the input, the rule it broke and the remedy.

HFIError
├── InvalidInputError         a value breaks a stated rule
│   └── ImageRefusedError     a picture is corrupt, too large or of a format that is not accepted
├── NotFoundError             the thing named does not exist
├── ConflictError             the same key already names something else
├── LeaseError                a judgment on an assignment that is not the annotator's
├── QuarantinedError          the picture is hidden everywhere
├── NoSpaceError              the disk or the quota is full
├── StoreReadOnlyError        the store's folder or file cannot be written
├── EphemeralDiskError        the store's disk forgets everything at the next restart
├── StoreBusyError            another process kept the write lock longer than the timeout
├── StoreTooNewError          the store was written by a newer version
└── StoreDamagedError         a guard, a hash or the file itself is not as it must be
"""

from __future__ import annotations


class HFIError(Exception):
    """Root of every error the product raises on purpose; its text is one clear sentence or two."""

    http_status = 400


class InvalidInputError(HFIError):
    """A value breaks a stated rule."""

    http_status = 422


class ImageRefusedError(InvalidInputError):
    """A picture is corrupt, too large, or of a format that is not accepted."""


class NotFoundError(HFIError):
    """The thing named does not exist."""

    http_status = 404


class ConflictError(HFIError):
    """The same key already names something else."""

    http_status = 409


class LeaseError(HFIError):
    """A judgment on an assignment that is not the annotator's, or no longer open."""

    http_status = 403


class QuarantinedError(HFIError):
    """The picture is hidden everywhere."""

    http_status = 451


class NoSpaceError(HFIError):
    """The disk or the quota is full; what was acknowledged before is safe."""

    http_status = 507


class StoreReadOnlyError(HFIError):
    """The store's folder or database file cannot be written."""

    http_status = 503


class EphemeralDiskError(HFIError):
    """The store's disk forgets everything at the next restart, and nobody said that this is meant."""

    http_status = 503


class StoreBusyError(HFIError):
    """Another process kept the write lock longer than the timeout."""

    http_status = 503


class StoreTooNewError(HFIError):
    """The store was written by a newer version of the product."""

    http_status = 503


class StoreDamagedError(HFIError):
    """A guard, a hash or the database file itself is not as it must be."""

    http_status = 500
