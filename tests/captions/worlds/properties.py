"""What things of the drawn worlds are like: the values of which each has one, and their spellings.

As in lexicon.py: values that somebody could argue for are told from those that are clearly true.
"""

from typing import NamedTuple

from tests.captions.worlds.lexicon import words


class Value(NamedTuple):
    """One value that a thing may have."""

    names: tuple[str, ...]
    """All true of it; annotators take one of them."""
    arguable: tuple[str, ...] = ()


class Property(NamedTuple):
    """Values of which a thing has one."""

    name: str
    of: tuple[str, ...]
    """Groups or kinds."""
    values: tuple[Value, ...]
    annotated: float
    """How often it is told."""
    several: bool = False
    """Whether a second value can be true as well."""


def _values(text: str) -> tuple[Value, ...]:
    """'blue (light blue), gray grey (silver)': true names, and arguable ones in brackets."""
    found = []
    for part in text.split(","):
        sure, _, arguable = part.strip().removesuffix(")").partition("(")
        names = tuple(name.replace("_", " ") for name in sure.split())
        found.append(Value(names, tuple(name.replace("_", " ") for name in arguable.split())))
    return tuple(found)


_LIVING = ("people", "animals")
_MADE = ("vehicles", "cycles", "seats", "tables", "containers", "things", "boards", "structures")
PROPERTIES = (
    Property(
        "colour",
        ("animals", *_MADE, "clothing", "plants", "food", "grounds"),
        _values(
            "red (maroon), blue (light_blue dark_blue navy teal), green (teal), white (cream), "
            "black (dark_blue dark_brown), brown (tan dark_brown light_brown), "
            "gray grey (silver tan), tan beige (cream khaki white), yellow (gold), gold (yellow), "
            "orange, pink (red), purple (dark_blue), light_blue blue (teal), "
            "dark_blue blue (navy)"
        ),
        0.6,
        several=True,
    ),
    Property(
        "material",
        ("seats", "tables", "containers", "structures", "things"),
        _values(
            "wood wooden, metal (steel), plastic (rubber), glass, brick, stone (concrete rock), "
            "leather, paper (cardboard), ceramic (glass), wicker (wood), concrete (stone)"
        ),
        0.35,
        several=True,
    ),
    Property(
        "size",
        ("animals", *_MADE, "plants", "food"),
        _values("large big (huge), small little (tiny), medium_sized (large small)"),
        0.4,
    ),
    Property("height", ("people", "structures", "plants"), _values("tall, short"), 0.3),
    Property("age", _LIVING, _values("young, old (elderly)"), 0.3),
    Property("newness", ("vehicles", "cycles", "seats", "tables"), _values("old, new"), 0.2),
    Property(
        "posture",
        _LIVING,
        _values("standing, sitting, lying lying_down"),
        0.3,
    ),
    Property("mood", ("people",), _values("happy (smiling), sad (unhappy)"), 0.2),
    Property("cleanness", (*_MADE, "clothing", "animals"), _values("clean, dirty (stained)"), 0.1),
    Property("wetness", ("animals", "clothing", "street", "road"), _values("wet, dry"), 0.15),
    Property("fullness", ("containers", "plate"), _values("empty, full"), 0.3),
    Property(
        "openness", ("door", "umbrella", "book", "box", "laptop"), _values("open, closed"), 0.4
    ),
    Property("power", ("lamp", "tv", "laptop"), _values("on, off"), 0.4),
    Property(
        "shape",
        ("tables", "plate", "sign", "clock", "pizza"),
        _values("round (oval), square (rectangular), rectangular (square), triangular"),
        0.3,
    ),
    Property(
        "pattern",
        ("clothing", "umbrella", "bag"),
        _values("plain solid, striped, dotted spotted, plaid (checkered), floral flowered"),
        0.5,
        several=True,
    ),
    Property(
        "sleeves",
        ("shirt", "t-shirt", "dress", "jacket"),
        _values("long_sleeved long-sleeved, short_sleeved short-sleeved, sleeveless"),
        0.4,
    ),
    Property("foliage", ("tree", "palm tree", "bush"), _values("leafy, leafless bare"), 0.3),
    Property(
        "tone",
        (*_MADE, "clothing"),
        _values("dark, bright (light), neither (dark light)"),
        0.1,
        several=True,
    ),
)
NEVER_TOLD = {"medium sized", "neither"}
"""Values that nobody annotates; what could be argued for them stays arguable."""
MANY_COLOURED = {
    "zebra",
    "cow",
    "stop sign",
    "picture",
    "kite",
    "book",
    "pizza",
    "plaid",
    "striped",
}
"""Kinds and patterns with two colours of which people tell one."""

NOTED = words("shiny, hanging, parked, decorative, tied, flying")
"""Said of things by annotators, known to nobody's lists."""

MATERIALS = {
    name
    for prop in PROPERTIES
    if prop.name == "material"
    for value in prop.values
    for name in (*value.names, *value.arguable)
}
"""What things are said to be made of."""

SAME_ATTRIBUTE = {
    "wooden": "wood", "grey": "gray", "long-sleeved": "long sleeved",
    "short-sleeved": "short sleeved", "lying": "lying down",
}  # fmt: skip
"""Other spellings."""
ATTRIBUTES = {
    SAME_ATTRIBUTE.get(name, name)
    for prop in PROPERTIES
    for value in prop.values
    for name in (*value.names, *value.arguable)
} - NEVER_TOLD
