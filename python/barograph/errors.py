"""Every error barograph raises on purpose: what was expected, what came, and a hint.

All are `BarographError`; each is also the builtin class that code without barograph in mind would catch.
"""

from __future__ import annotations

__all__ = [
    "BarographError",
    "FrameError",
    "IncompatibleError",
    "InvalidArgumentError",
    "NotFoundError",
    "SnapshotError",
    "UnsupportedError",
]


class BarographError(Exception):
    """The base of all errors here. `hint` says what to do about it, if anything is known."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\nhint: {hint}")
        self.message = message
        self.hint = hint


class InvalidArgumentError(BarographError, ValueError):
    """An argument is outside what is accepted."""


class FrameError(InvalidArgumentError):
    """A frame or file that cannot be read as a table."""


class IncompatibleError(BarographError, ValueError):
    """Two things that cannot be combined: other parameters, another reference."""


class SnapshotError(BarographError, ValueError):
    """Bytes that are not a snapshot, or not one this version reads."""


class NotFoundError(BarographError, LookupError):
    """A name that is not there."""


class UnsupportedError(BarographError, TypeError):
    """Data of a kind that is not handled."""
