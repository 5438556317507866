"""Vocabulary of random scene graphs: names by group, attributes of them, relations between them.

Everyday English, made up for these graphs. In every list the common words come first; how common
they are, and what is done with them, is in graphs.py.
"""

from typing import Literal, NamedTuple

GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(names.split(", "))
    for group, names in {
        "people": "man, person, woman, people, boy, girl, child, men, lady, player, skier, baby",
        "clothing": "shirt, hat, pants, shoe, jacket, shorts, shoes, helmet, jeans, cap, coat, "
        "glove, sock, tie, glasses, dress, sunglasses, scarf, belt",
        "carried": "bag, umbrella, cell phone, racket, backpack, kite, ball, camera, surfboard, "
        "bat, skis, newspaper",
        "parts": "head, hand, hair, leg, ear, eye, arm, face, tail, foot, nose, wheel, legs, tire, "
        "wing, neck, eyes, handle, door, windshield",
        "animals": "dog, horse, cat, cow, sheep, bird, elephant, giraffe, zebra, cows, birds, duck",
        "vehicles": "car, bus, truck, boat, train, motorcycle, bicycle, airplane, cars, van, taxi",
        "furniture": "table, chair, bed, sofa, bench, shelf, desk, cabinet, chairs, counter",
        "tableware": "plate, glass, bowl, cup, bottle, fork, knife, spoon, tray, napkin, mug",
        "food": "pizza, banana, cake, bread, sandwich, apple, carrot, bananas, cheese, tomato, "
        "broccoli, egg",
        "decor": "window, picture, lamp, pillow, clock, mirror, book, curtain, vase, books, "
        "blanket, towel, rug, candle",
        "devices": "television, laptop, keyboard, monitor, remote, oven, sink, refrigerator",
        "built": "building, pole, sign, fence, house, street light, traffic light, wall, post, "
        "windows, roof, bridge, tower, stop sign, flag",
        "nature": "tree, trees, bush, leaves, rock, flower, cloud, plant, clouds, hill, branch, "
        "flowers, bushes, mountain, palm tree",
        "grounds": "ground, grass, sky, water, road, snow, sidewalk, field, street, sand, floor, "
        "ocean, dirt",
    }.items()
}

SETTINGS: dict[str, dict[str, int]] = {
    setting: {group: int(share) for group, share in map(str.split, shares.split(", "))}
    for setting, shares in {
        "street": "built 6, vehicles 4, people 3, clothing 3, grounds 3, parts 3, nature 3, "
        "carried 1",
        "kitchen": "tableware 5, food 3, furniture 3, devices 3, decor 3, people 1, clothing 1, "
        "parts 1",
        "room": "decor 5, furniture 4, devices 3, people 2, clothing 2, parts 2, animals 1, "
        "carried 1",
        "park": "clothing 5, nature 5, people 4, grounds 4, carried 3, parts 3, animals 2, built 1",
        "shore": "people 4, grounds 4, nature 3, clothing 3, parts 3, carried 2, vehicles 1",
        "farm": "animals 6, parts 4, nature 4, grounds 4, built 2, people 1, clothing 1",
    }.items()
}
"""Kind of image -> groups, and how much there is of each."""

COLOURS = "white, black, blue, red, brown, green, gray, yellow, orange, pink, silver, purple, tan"
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    group: tuple(values.split(", "))
    for group, values in {
        "people": "standing, young, walking, smiling, sitting, tall, old, happy, blond, little",
        "clothing": f"{COLOURS}, striped, long sleeved, plaid, dark, short sleeved, leather",
        "carried": f"{COLOURS}, large, small, colorful, striped, open, leather",
        "parts": "black, white, brown, long, short, small, large, curly, gray, round, blond",
        "animals": "brown, white, black, standing, large, small, walking, young, gray, spotted",
        "vehicles": f"parked, {COLOURS}, large, old, small, empty, long",
        "furniture": "wooden, white, brown, black, small, large, empty, round, metal, leather, "
        "clean, gray, messy",
        "tableware": "white, glass, empty, clear, round, small, blue, plastic, full, large, metal, "
        "ceramic, dirty",
        "food": "yellow, sliced, orange, red, green, ripe, round, cooked, small, white, whole",
        "decor": "white, small, large, closed, open, round, black, blue, brown, square, gold, on, "
        "red, striped",
        "devices": "black, white, silver, on, large, off, small, open, gray, metal, new",
        "built": "large, tall, white, brick, metal, brown, small, red, wooden, gray, old, closed, "
        "concrete, stone, green",
        "nature": "green, large, small, leafy, tall, brown, bare, white, leafless, yellow, thick",
        "grounds": "green, brown, wet, gray, dry, white, clear, paved, calm, concrete",
    }.items()
}
"""Group -> attributes of its members."""

ATTRIBUTES_OF: dict[str, tuple[str, ...]] = {
    name: tuple(values.split(", "))
    for name, values in {
        "sky": "blue, clear, cloudy, gray",
        "water": "blue, calm, green, wavy, clear, gray",
        "ocean": "blue, calm, green, wavy",
        "snow": "white, deep",
        "grass": "green, brown, tall, dry, short, wet",
        "clouds": "white, gray, dark, large",
        "cloud": "white, gray, large, small",
        "zebra": "striped, black and white, standing, walking",
        "giraffe": "tall, spotted, brown, standing, walking",
        "banana": "yellow, ripe, green, peeled",
        "window": "glass, closed, small, large, open, clear, rectangular, square",
        "stop sign": "red, octagonal, white",
        "hair": "brown, black, long, blond, short, curly, gray, dark",
        "tire": "black, round, rubber, large",
        "wheel": "black, round, silver, small",
    }.items()
}
"""Names with fewer or other attributes than the rest of their group."""

Placement = Literal["inside", "onto", "beneath", "beside", "overlapping", "above", "anywhere"]


class Rule(NamedTuple):
    """A predicate, its subjects and objects, and where it puts its subject."""

    predicate: str
    subjects: tuple[str, ...]
    """Groups or names."""
    objects: tuple[str, ...]
    placement: Placement
    weight: float
    """How often, in relations an image, as far as there are such objects."""


_LIVING = ("people", "animals")
_THINGS = ("tableware", "food", "carried", "devices", "decor")
_FIXED = ("furniture", "built", "nature", "vehicles")

RULES = (
    Rule("wearing", ("people",), ("clothing",), "inside", 2.6),
    Rule("on", (*_THINGS, "animals"), ("furniture", "grounds", "plate"), "onto", 2.0),
    Rule("on", ("parts", "clothing"), (*_LIVING, "vehicles"), "inside", 0.8),
    Rule("of", ("parts",), (*_LIVING, "vehicles", "furniture"), "inside", 1.4),
    Rule("in", ("people", "animals", "vehicles"), ("grounds",), "onto", 0.8),
    Rule("in", ("food", "flowers", "flower"), ("tableware", "vase"), "inside", 0.6),
    Rule("near", (*_LIVING, *_FIXED, *_THINGS), (*_FIXED, *_LIVING, *_THINGS), "beside", 0.9),
    Rule("in front of", (*_LIVING, *_FIXED), (*_FIXED, *_LIVING), "overlapping", 0.55),
    Rule("behind", (*_LIVING, *_FIXED), (*_FIXED, *_LIVING), "overlapping", 0.55),
    Rule("holding", ("people",), ("carried", "tableware", "food"), "beside", 0.6),
    Rule("on top of", _THINGS, ("furniture", "grounds"), "onto", 0.3),
    Rule("next to", (*_LIVING, *_FIXED, *_THINGS), (*_FIXED, *_LIVING), "beside", 0.3),
    Rule("above", ("decor", "built", "nature"), ("furniture", "built", "devices"), "above", 0.3),
    Rule("below", _THINGS, ("decor", "built"), "beneath", 0.2),
    Rule("under", (*_LIVING, *_THINGS, "furniture"), ("umbrella", *_FIXED), "beneath", 0.2),
    Rule("with", ("people",), ("carried", "animals"), "beside", 0.25),
    Rule("sitting on", _LIVING, ("furniture", "ground", "grass", "sand"), "onto", 0.5),
    Rule("standing on", _LIVING, ("grounds",), "onto", 0.4),
    Rule("walking on", _LIVING, ("grounds",), "onto", 0.25),
    Rule("riding", ("people",), ("horse", "motorcycle", "bicycle", "surfboard"), "onto", 0.6),
    Rule("carrying", ("people",), ("carried",), "beside", 0.2),
    Rule("eating", _LIVING, ("food", "grass"), "beside", 0.3),
    Rule("parked on", ("vehicles",), ("street", "road", "ground"), "onto", 0.4),
    Rule("looking at", _LIVING, (*_LIVING, "devices", "carried"), "anywhere", 0.2),
    Rule("hanging on", ("decor", "clothing"), ("wall", "post", "fence"), "inside", 0.3),
    Rule("covered by", ("ground", "tree", "roof", "mountain"), ("snow",), "overlapping", 0.3),
)
