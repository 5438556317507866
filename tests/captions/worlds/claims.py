"""What a caption claims, as the tests read it: plain tuples, no English and no verdict."""

from typing import NamedTuple


class Phrase(NamedTuple):
    """A noun with its attributes."""

    name: str
    attributes: frozenset[str]
    plural: bool
    definite: bool = False
    """Whether it has 'the': then it must mean one thing of the image and no other."""


class Is(NamedTuple):
    """Some such thing has an attribute; without one, there is such a thing."""

    subject: Phrase
    attribute: str | None


class Does(NamedTuple):
    """Some such thing stands in a relation to some such thing."""

    subject: Phrase
    predicate: str
    object: Phrase


class Number(NamedTuple):
    """There are exactly so many."""

    counted: Phrase
    number: int


class Compare(NamedTuple):
    """'more', 'fewer' or 'as many'."""

    counted: Phrase
    comparator: str
    other: Phrase


class Not(NamedTuple):
    """The opposite."""

    claim: "Is | Does"


class Both(NamedTuple):
    """Two claims; ``one_subject`` if it is of one thing that they are made."""

    first: "Is | Does"
    second: "Is | Does"
    one_subject: bool


class Either(NamedTuple):
    """Exactly one of two claims."""

    first: "Is | Does"
    second: "Is | Does"


Simple = Is | Does
Claim = Is | Does | Number | Compare | Not | Both | Either


class Parsed(NamedTuple):
    """What a caption claims, and its definite phrases."""

    claim: Claim
    definite: tuple[Phrase, ...]
