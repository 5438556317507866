"""Exceptions that reach the user as one line, without a traceback (interruptions.py).

Everything a user can fix (a path, a setting, a broken file) is raised as UserError; any other
exception is a defect of this package.
"""

import difflib
from collections.abc import Iterable, Sequence

IN_WORKER = "Original Traceback (most recent call last):"
"""Marks the text of exceptions from a DataLoader's worker."""


class UserError(Exception):
    """An error the user can fix: what is wrong, where, and what to do. Exit status 2."""

    def __str__(self) -> str:
        """The line alone; a DataLoader re-raises its worker's error with the traceback as text."""
        text = super().__str__()
        raised = f".{type(self).__name__}: "
        return text.rpartition(raised)[2].strip() if IN_WORKER in text else text


class RankError(UserError):
    """An error that only this rank knows; it is printed on this rank, whichever it is."""


class Stopped(Exception):
    """A command that was stopped by a signal and ended cleanly.

    Args:
        message: What is kept, and how to continue.
        status: Exit status: 128 + the signal's number, the shell convention.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` with the most similar known name, or ``""``."""
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{nearest[0]}'?" if nearest else ""


def holding(folders: Sequence[object]) -> str:
    """``A holds``, ``A and B hold``: folders as the subject of what they hold, for messages."""
    return " and ".join(map(str, folders)) + (" holds" if len(folders) == 1 else " hold")


def counted(count: int, one: str, many: str | None = None) -> str:
    """``1 rank``, ``2 ranks``, ``1,000 bodies``: a count with its noun, for messages.

    Args:
        count: The number.
        one: Singular of the noun.
        many: Plural of the noun; ``one`` with an s by default.
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"
