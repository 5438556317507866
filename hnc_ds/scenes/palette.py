"""Colour names and what they look like. Order matters: settings take colours from the front."""

COLOURS = {
    "red": (216, 38, 44),
    "blue": (38, 82, 214),
    "green": (40, 160, 62),
    "yellow": (247, 214, 38),
    "purple": (130, 46, 172),
    "orange": (246, 130, 22),
    "white": (247, 247, 245),
    "black": (26, 26, 30),
    "pink": (248, 142, 190),
    "brown": (122, 74, 38),
    "teal": (16, 148, 150),
}
"""Colour word -> sRGB, 0..255. Each picture varies them slightly."""

PATTERNS = ("striped", "dotted")
"""Attributes of things that are not plain."""
