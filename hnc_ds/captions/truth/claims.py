"""What a caption can claim: a small algebra. Claims know no English and no image.

``truth.holds`` says whether a claim is true of an image, ``wording`` puts it into words.
"""

from typing import Literal

import msgspec

Comparator = Literal["as many", "more", "fewer"]

TURNED: dict[Comparator, Comparator] = {"more": "fewer", "fewer": "more", "as many": "as many"}
"""What the same comparison says from its other end."""


class Phrase(msgspec.Struct, frozen=True, cache_hash=True):
    """A noun phrase: a name and attributes, in the order in which they are said."""

    name: str
    attributes: tuple[str, ...] = ()
    definite: bool = True
    """'the star', or any one of several: 'a star'. What is meant is the same."""


class HasAttribute(msgspec.Struct, frozen=True):
    """Something has an attribute: 'The star is red.', 'There is a red star.'"""

    subject: Phrase
    attribute: str


class Related(msgspec.Struct, frozen=True):
    """A relation holds: 'The red star is above the ring.'"""

    subject: Phrase
    predicate: str
    object: Phrase


class Counted(msgspec.Struct, frozen=True):
    """There are exactly so many: 'There are two stars.', 'There are two red stars.'"""

    name: str
    """In the singular."""
    number: int
    attributes: tuple[str, ...] = ()
    """That all of them have, in the order in which they are said."""


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
    """Said of these very things: 'The star is red and the ring is blue.'"""


class Either(msgspec.Struct, frozen=True):
    """Exactly one of the two: 'There is either a red star or a blue ring.'"""

    first: HasAttribute | Related
    second: HasAttribute | Related
    clauses: bool = False
    """Said of these very things: 'Either the star is red or the ring is blue.'"""


Claim = HasAttribute | Related | Counted | Compared | Not | Both | Either
