"""Errors that a user can cause, each with the offending value and what is allowed.

Entry points print the message of a `SkyfoldError` as one line and exit with status 2; every other
exception is a defect and keeps its traceback.
"""

from __future__ import annotations


class SkyfoldError(Exception):
    """Base of all errors that a user can cause and correct.

    Args:
        message: One line: what was wrong (name = value), what is allowed, which command helps.
        value: The offending value.
        allowed: What would have been accepted, in words or as a collection.
    """

    def __init__(self, message: str, value: object = None, allowed: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.value = value
        self.allowed = allowed

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[SkyfoldError], tuple[str, object, object]]:
        """Keep value and allowed set when a worker process sends the error home."""
        return type(self), (self.message, self.value, self.allowed)


class ConfigError(SkyfoldError, ValueError):
    """A setting has the wrong name, type or range, or contradicts another one."""


class DataFormatError(SkyfoldError, ValueError):
    """A file exists but does not hold what its format asks for."""


class DataNotFoundError(SkyfoldError, FileNotFoundError):
    """A file or folder is missing; the message names the command that makes it."""


class CheckpointError(SkyfoldError, RuntimeError):
    """A checkpoint is corrupt, unsafe, of another task, or does not fit the data."""


class OutputError(SkyfoldError, OSError):
    """An output cannot be written: no permission, no space, or a name that is taken."""
