"""What negatives turn on (``Negative.about``), as results, logs and reports name it."""

from hnc_ds.captions.language.attribute_classes import RANK

PREDICATE, ATTRIBUTE = "predicate", "attribute"
KINDS = (PREDICATE, ATTRIBUTE)

_BETWEEN = ": "


def kind_of(about: str) -> str:
    """Whether it is a PREDICATE, or the class of an ATTRIBUTE."""
    return ATTRIBUTE if about in RANK else PREDICATE


def group_of(about: str) -> str:
    """The group of a score: 'predicate: on', 'attribute: colour'."""
    return f"{kind_of(about)}{_BETWEEN}{about}"


def about_of(group: str) -> str | None:
    """What such a group's negatives turn on; None of another group."""
    kind, between, about = group.partition(_BETWEEN)
    return about if between and kind in KINDS else None
