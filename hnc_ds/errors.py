"""The one exception that reaches the user as a plain line.

Everything a user can mend (a path, a setting, a broken file) is raised as UserError and
printed without a traceback; any other exception is a defect of this project.
"""

import difflib
from collections.abc import Iterable

IN_WORKER = "Original Traceback (most recent call last):"
"""In the text of what a DataLoader's worker raised."""


class UserError(Exception):
    """Something the user can fix: says what is wrong, where, and what to do. Exit code 2."""

    def __str__(self) -> str:
        """The line alone: a DataLoader raises that of its worker with the traceback as text."""
        text = super().__str__()
        raised = f".{type(self).__name__}: "
        return text.rpartition(raised)[2].strip() if IN_WORKER in text else text


class RankError(UserError):
    """What this rank alone can tell, as no other hears of it: it speaks for itself."""


class Stopped(Exception):
    """A run that was asked to stop and did, in good order.

    Args:
        message: What was done, and how to go on.
        status: Exit code: 128 + the signal's number, as shells have it.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest known name, or ``""`` when none is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{nearest[0]}'?" if nearest else ""


def counted(count: int, one: str, many: str | None = None) -> str:
    """``1 rank``, ``2 ranks``, ``1,000 bodies``: a count with its noun, for messages.

    Args:
        count: How many.
        one: The noun for one.
        many: For any other count, where it is not ``one`` with an s.
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"
