"""The verdict of a check on the label of a caption."""

from enum import Enum
from typing import NamedTuple


class Label(Enum):
    """What is known about a label."""

    RIGHT = "right"
    UNPROVEN = "unproven"
    WRONG = "wrong"


class Finding(NamedTuple):
    """A caption, how it is labelled, and whether that is right."""

    label: Label
    caption: str
    is_true: bool
    """As labelled."""
    type: str
    """The kind of the true caption, or the type of the false one."""
    why: str = ""
    """Why it is not proven right."""
    positive: str = ""
    """Of a false caption: the true one."""
