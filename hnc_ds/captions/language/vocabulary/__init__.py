"""Word lists of this project. Each module of hnc_ds.captions.language says what its list means."""

from importlib.resources import files
from typing import TypeVar

import msgspec

_Lists = TypeVar("_Lists")


def read_lists(name: str, type_: type[_Lists]) -> _Lists:
    """The lists of one file of this folder; a field that it lacks is a bug and raises."""
    return msgspec.json.decode(files(__name__).joinpath(name).read_bytes(), type=type_)
