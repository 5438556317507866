"""Claims that captions make, as a small algebra independent of English and of images.

``truth.holds`` evaluates a claim on a scene graph, ``language.wording`` makes it a sentence.
"""

from typing import Literal

import msgspec

Comparator = Literal["as many", "more", "fewer"]

TURNED: dict[Comparator, Comparator] = {"more": "fewer", "fewer": "more", "as many": "as many"}
"""The comparator after the two names are exchanged."""


class Phrase(msgspec.Struct, frozen=True, cache_hash=True):
    """A noun phrase: a name and its attributes in spoken order."""

    name: str
    attributes: tuple[str, ...] = ()
    definite: bool = True
    """'the star' or 'a star'; only the wording depends on it."""


class HasAttribute(msgspec.Struct, frozen=True):
    """'The star is red.', 'There is a red star.'"""

    subject: Phrase
    attribute: str


class Related(msgspec.Struct, frozen=True):
    """'The red star is above the ring.'"""

    subject: Phrase
    predicate: str
    object: Phrase


class Counted(msgspec.Struct, frozen=True):
    """An exact number: 'There are two stars.', 'There are two red stars.'"""

    name: str
    """In the singular."""
    number: int
    attributes: tuple[str, ...] = ()
    """Attributes of all of them, in spoken order."""


class Compared(msgspec.Struct, frozen=True):
    """'There are more stars than rings.' Both names are in the singular."""

    name: str
    comparator: Comparator
    other: str


class Not(msgspec.Struct, frozen=True):
    """'There is no star that is above the ring.'"""

    claim: HasAttribute | Related


class Both(msgspec.Struct, frozen=True):
    """'There is both a red star and a blue ring.'"""

    first: HasAttribute | Related
    second: HasAttribute | Related
    clauses: bool = False
    """Whether each part is a clause: 'The star is red and the ring is blue.'"""


class Either(msgspec.Struct, frozen=True):
    """Exactly one of the two: 'There is either a red star or a blue ring.'"""

    first: HasAttribute | Related
    second: HasAttribute | Related
    clauses: bool = False
    """Whether each part is a clause: 'Either the star is red or the ring is blue.'"""


Claim = HasAttribute | Related | Counted | Compared | Not | Both | Either
