"""What things of the drawn worlds are like: the values of which each has one, and their spellings.

As in lexicon.py: arguable values are kept apart from those that are clearly true.
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
    """Probability that it is annotated."""
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
            "red (maroon pink orange), blue (light_blue dark_blue navy teal), green (teal khaki), "
            "white (cream silver beige), black (dark_blue dark_brown navy), "
            "brown (tan dark_brown light_brown maroon brunette gold golden khaki beige blond), "
            "gray grey (silver tan beige khaki), tan beige (cream khaki white blond light_brown "
            "brown yellow), yellow (gold golden cream blond), gold golden (yellow "
            "light_brown orange blond), orange (red gold golden), pink (red maroon purple), "
            "purple (dark_blue maroon pink navy), light_blue blue (teal), "
            "dark_blue blue (navy teal purple), light_brown brown (tan beige khaki gold golden "
            "blond orange), maroon (red brown purple dark_brown), silver (gray grey white metallic)"
        ),
        0.6,
        several=True,
    ),
    Property(
        "material",
        ("seats", "tables", "containers", "structures", "things"),
        _values(
            "wood wooden (bamboo hardwood wicker cardboard), metal (steel aluminum brass bronze "
            "chrome copper iron stainless_steel tin plastic), plastic (rubber vinyl styrofoam "
            "porcelain ceramic leather metal paper glass), glass (crystal ceramic porcelain "
            "plastic), brick (stone clay concrete cement cobblestone rock), stone (concrete cement "
            "rock marble granite cobblestone ceramic clay brick), leather (vinyl plastic rubber), "
            "paper (cardboard plastic styrofoam), ceramic (glass porcelain clay marble stone "
            "plastic), wicker (wood straw bamboo), concrete cement (stone rock granite marble "
            "cobblestone brick), cloth (fabric cotton silk wool denim)"
        ),
        0.35,
        several=True,
    ),
    Property(
        "size",
        ("animals", *_MADE, "plants", "food"),
        _values(
            "large big (huge enormous giant massive oversized), small little (tiny miniature), "
            "medium_sized (large small big little)"
        ),
        0.4,
    ),
    Property("height", ("people", "structures", "plants"), _values("tall, short"), 0.3),
    Property("age", _LIVING, _values("young (baby), old elderly"), 0.3),
    Property(
        "newness",
        ("vehicles", "cycles", "seats", "tables"),
        _values(
            "old (antique vintage weathered worn), new modern, used_long (old new modern worn)"
        ),
        0.2,
    ),
    Property(
        "posture",
        _LIVING,
        _values(
            "standing (walking crouching crouched kneeling), "
            "sitting seated (crouching crouched kneeling squatting), lying lying_down (sleeping)"
        ),
        0.3,
    ),
    Property(
        "mood",
        ("people",),
        _values("happy (smiling laughing), sad unhappy (angry), calm_faced (happy)"),
        0.2,
    ),
    Property(
        "cleanness",
        (*_MADE, "clothing", "animals"),
        _values("clean, dirty (stained dusty muddy murky)"),
        0.1,
    ),
    Property("wetness", ("animals", "clothing", "street", "road"), _values("wet, dry"), 0.15),
    Property(
        "fullness",
        ("containers", "plate"),
        _values("empty (unoccupied vacant), full (packed crowded), half_full"),
        0.3,
    ),
    Property(
        "openness", ("door", "umbrella", "book", "box", "laptop"), _values("open, closed shut"), 0.4
    ),
    Property(
        "power",
        ("lamp", "tv", "laptop"),
        _values("on turned_on (lit lighted glowing illuminated), off turned_off (unlit)"),
        0.4,
    ),
    Property(
        "shape",
        ("tables", "plate", "sign", "clock", "pizza"),
        _values(
            "round circular (oval), square (rectangular), rectangular (square), triangular, "
            "octagonal (round)"
        ),
        0.3,
    ),
    Property(
        "pattern",
        ("clothing", "umbrella", "bag"),
        _values(
            "plain solid, striped (checkered plaid), dotted spotted (speckled), "
            "plaid checkered (striped), floral flowered"
        ),
        0.5,
        several=True,
    ),
    Property(
        "sleeves",
        ("shirt", "t-shirt", "dress", "jacket"),
        _values("long_sleeved long-sleeved, short_sleeved short-sleeved, sleeveless"),
        0.4,
    ),
    Property("foliage", ("tree", "palm tree", "bush"), _values("leafy (lush), leafless bare"), 0.3),
    Property("width", ("grounds", "tables", "structures"), _values("wide, narrow"), 0.15),
    Property("thickness", ("food", "book", "tree", "pole"), _values("thick, thin (skinny)"), 0.15),
    Property(
        "straightness",
        ("pole", "road", "street", "fence"),
        _values("straight, curved (bent crooked)"),
        0.2,
    ),
    Property("hardness", ("seats", "food"), _values("soft, hard"), 0.1),
    Property("sex", ("people",), _values("male, female"), 0.0),
    Property("weather", ("sky",), _values("clear (cloudless), cloudy (overcast foggy hazy)"), 0.5),
    Property("waves", ("water", "lake"), _values("calm still, choppy (wavy rough)"), 0.4),
    Property("paving", ("street", "road"), _values("paved (asphalt), unpaved (gravel)"), 0.2),
    Property("ripeness", ("banana", "apple"), _values("ripe, unripe"), 0.2),
    Property("peel", ("banana", "orange"), _values("peeled, unpeeled"), 0.2),
    Property(
        "cooking",
        ("pizza", "bread", "sandwich"),
        _values("cooked (baked toasted grilled fried roasted boiled steamed), raw (uncooked)"),
        0.15,
    ),
    Property("tidiness", ("desk", "bed", "shelf"), _values("neat (tidy), messy (cluttered)"), 0.2),
    Property(
        "lighting", ("street light",), _values("lit (glowing illuminated lighted), unlit"), 0.2
    ),
    Property(
        "tone",
        (*_MADE, "clothing"),
        _values("dark, bright (light), neither (dark light bright)"),
        0.1,
        several=True,
    ),
)
NEVER_ANNOTATED = {"medium sized", "neither", "used long", "calm faced"}
"""Values that are never annotated; what could be argued for them stays arguable."""
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
"""Kinds and patterns with two colours of which annotators give one."""

NOTED = words("decorative, tied, famous, beautiful")
"""Attributes that annotators use and no list has."""

MATERIALS = {
    name
    for prop in PROPERTIES
    if prop.name == "material"
    for value in prop.values
    for name in (*value.names, *value.arguable)
}
"""Materials of things."""

SAME_ATTRIBUTE = {
    "wooden": "wood", "grey": "gray", "long-sleeved": "long sleeved",
    "short-sleeved": "short sleeved", "lying": "lying down", "cement": "concrete",
    "metallic": "metal", "woolen": "wool",
}  # fmt: skip
"""Other spellings."""
ATTRIBUTES = {
    SAME_ATTRIBUTE.get(name, name)
    for prop in PROPERTIES
    for value in prop.values
    for name in (*value.names, *value.arguable)
} - NEVER_ANNOTATED | {"running", "fat", "long"}
