"""Captions, parsed back from their text, against worlds in which everything is known.

A world is drawn first: every object has all its attributes and its true place. Its scene graph
annotates a part of that, as people do. Captions are made from the graph and judged by the world,
with a parser and a geometry of this file's own: a positive must be true, a negative false.
"""

import random
import re
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from hnc_ds.captions.groups import caption_groups
from hnc_ds.captions.negative_types import NEGATIVE_TYPES
from hnc_ds.records import CaptionGroup, Relation, SceneGraph, SceneObject

TYPES = tuple(NEGATIVE_TYPES)
WIDTH, HEIGHT = 800, 600

# Names that a name covers: "person" is true of a man. Plurals and singulars count as one name.
COVERS = {
    "person": {"person", "man", "woman", "people"},
    "people": {"person", "man", "woman", "people"},
    "man": {"man"},
    "woman": {"woman"},
    "dog": {"dog", "dogs"},
    "dogs": {"dog", "dogs"},
    "cup": {"cup", "cups"},
    "cups": {"cup", "cups"},
    "box": {"box"},
    "car": {"car"},
    "vehicle": {"vehicle", "car", "bus"},
    "bus": {"bus"},
    "table": {"table"},
    "sign": {"sign", "stop sign"},
    "stop sign": {"stop sign"},
    "lamp": {"lamp"},
    "kite": {"kite"},
    "grass": {"grass"},
}
COMMON = ["man", "dog", "cup", "sign", "car", "box"]
COLOURS = ["red", "blue", "green", "white", "black", "brown"]
SIZES = ["large", "small"]
MATERIALS = ["wood", "metal", "plastic", "glass"]
SPOKEN = {"wooden": "wood"}
INVERSE = {
    "to the left of": "to the right of",
    "above": "below",
    "in front of": "behind",
}
INVERSE |= {b: a for a, b in INVERSE.items()}
PREDICATES = [*INVERSE, "on", "under", "inside", "outside", "near", "next to", "in", "on top of"]


@dataclass
class Thing:
    name: str
    box: tuple[int, int, int, int]
    depth: float
    attributes: set[str]
    host: int | None = None
    how: str = ""
    annotated: list[tuple[str, int]] = field(default_factory=list)

    @property
    def centre(self):
        x, y, w, h = self.box
        return x + w / 2, y + h / 2


def draw_world(rng):
    things = []
    for _ in range(rng.randint(2, 16)):
        name = rng.choice(COMMON if rng.random() < 0.5 else sorted(COVERS))
        attributes = {rng.choice(COLOURS), rng.choice(SIZES), rng.choice(MATERIALS)}
        if rng.random() < 0.15:
            attributes |= {"striped", rng.choice(COLOURS)}
        w, h = rng.randint(10, 300), rng.randint(10, 250)
        box = (rng.randint(0, WIDTH - w), rng.randint(0, HEIGHT - h), w, h)
        thing = Thing(name, box, rng.random(), attributes)
        if things and rng.random() < 0.3:
            place_at_host(thing, rng.randrange(len(things)), things, rng)
        things.append(thing)
    return things


def place_at_host(thing, host, things, rng):
    """Put it on or inside another one, with boxes that touch."""
    x, y, w, h = things[host].box
    thing.host, thing.how = host, rng.choice(["on", "inside"])
    if thing.how == "inside":
        own_w, own_h = max(2, w // 2), max(2, h // 2)
        thing.box = (x + rng.randint(0, w - own_w), y + rng.randint(0, h - own_h), own_w, own_h)
    else:
        thing.box = (x + rng.randint(0, w // 2), max(0, y - thing.box[3] + 2), *thing.box[2:])


def holds_between(things, i, predicate, j):
    """Whether it could be called true in the world; generous, as negatives must not be."""
    a, b = things[i], things[j]
    (ax, ay), (bx, by) = a.centre, b.centre
    inside = (a.host, a.how) == (j, "inside")
    nested = inside or (b.host, b.how) == (i, "inside")
    return {
        "to the left of": ax < bx and not nested,
        "to the right of": ax > bx and not nested,
        "above": ay < by and not nested,
        "below": ay > by and not nested,
        "under": ay > by and not nested and a.host != j,
        "in front of": a.depth < b.depth and not nested,
        "behind": a.depth > b.depth and not nested,
        "on": (a.host, a.how) == (j, "on"),
        "on top of": (a.host, a.how) == (j, "on"),
        "inside": inside,
        "in": inside,
        "outside": not inside,
        "near": True,
        "next to": True,
    }[predicate]


def annotate(things, rng):
    """The scene graph: some of what is true, and now and then a box or an end that is wrong."""
    for i, thing in enumerate(things):
        for j in rng.sample(range(len(things)), min(len(things), 6)):
            if i == j:
                continue
            options = ["to the left of", "to the right of"] * 4 + ["above", "below", "near"]
            if {thing.host, things[j].host}.isdisjoint({i, j}):
                options += ["in front of", "behind"]
            predicate = rng.choice(options)
            if (thing.host, rng.random() < 0.7) == (j, True):
                predicate = thing.how
            if holds_between(things, i, predicate, j):
                thing.annotated.append((predicate, j))
                if predicate in INVERSE and rng.random() < 0.5:
                    things[j].annotated.append((INVERSE[predicate], i))
    objects = {}
    for i, thing in enumerate(things):
        told = {a for a in thing.attributes if rng.random() < 0.6}
        if "striped" in thing.attributes:
            told |= {"striped"}
        objects[str(i)] = SceneObject(
            thing.name,
            *thing.box,
            attributes=tuple(sorted(told)),
            relations=tuple(Relation(name=p, object=str(j)) for p, j in thing.annotated),
        )
    return SceneGraph("1", WIDTH, HEIGHT, objects)


def parse(text):
    """('relation', phrase, predicate, phrase) or ('attribute', phrase, value)."""
    match = re.fullmatch(r"The (.+?) (?:is|are) (.+)\.", text)
    assert match, text
    subject, rest = match.groups()
    for predicate in sorted(PREDICATES, key=len, reverse=True):
        if rest.startswith(f"{predicate} the "):
            return (
                "relation",
                parse_phrase(subject),
                predicate,
                parse_phrase(rest[len(predicate) + 5 :]),
            )
    return "attribute", parse_phrase(subject), rest.removeprefix("made of ")


def parse_phrase(words):
    for name in sorted(COVERS, key=len, reverse=True):
        if words == name or words.endswith(f" {name}"):
            before = words.removesuffix(name).split()
            return name, {SPOKEN.get(word, word) for word in before}
    raise AssertionError(words)


def meant(things, phrase):
    name, attributes = phrase
    return [
        i for i, t in enumerate(things) if t.name in COVERS[name] and attributes <= t.attributes
    ]


def is_true(things, text):
    parsed = parse(text)
    if parsed[0] == "attribute":
        return any(parsed[2] in things[i].attributes for i in meant(things, parsed[1]))
    _, subject, predicate, object_ = parsed
    return any(
        i != j and holds_between(things, i, predicate, j)
        for i in meant(things, subject)
        for j in meant(things, object_)
    )


def test_in_drawn_worlds_every_positive_is_true_and_every_negative_false():
    rng = random.Random(0)
    counts = dict.fromkeys(TYPES, 0)
    for _ in range(400):
        world = draw_world(rng)
        graph = annotate(world, rng)
        for group in caption_groups(graph, TYPES, 0, 48).groups:
            assert is_true(world, group.positive), (group.positive, graph)
            assert len(meant(world, parse(group.positive)[1])) == 1, (group.positive, graph)
            for negative in group.negatives:
                assert not is_true(world, negative.caption), (group, negative, graph)
                counts[negative.type] += 1
    # The check would be idle without captions to check.
    assert min(counts.values()) > 300, counts


# ---- any graph at all, however contradictory its annotations

NAMES = ["dog", "dogs", "person", "man", "cup", "box"]
ATTRIBUTES = [*COLOURS, *SIZES, *MATERIALS, "striped"]


@st.composite
def graphs(draw):
    count = draw(st.integers(0, 5))
    side = st.integers(-5, 120)
    objects = {}
    for i in range(count):
        relations = draw(
            st.lists(st.tuples(st.sampled_from(PREDICATES), st.integers(0, count - 1)), max_size=5)
        )
        objects[str(i)] = SceneObject(
            draw(st.sampled_from(NAMES)),
            *(draw(side) for _ in range(4)),
            attributes=tuple(draw(st.lists(st.sampled_from(ATTRIBUTES), max_size=3))),
            relations=tuple(Relation(name=p, object=str(j)) for p, j in relations if i != j),
        )
    return SceneGraph("1", 100, 100, objects)


def is_annotated(graph, text):
    """Whether some object (pair) that the words fit is annotated so."""

    def fitting(phrase):
        name, attributes = phrase
        return [
            (object_id, found)
            for object_id, found in graph.objects.items()
            if found.name in COVERS[name] and attributes <= set(found.attributes)
        ]

    parsed = parse(text)
    if parsed[0] == "attribute":
        return any(parsed[2] in found.attributes for _, found in fitting(parsed[1]))
    _, subject, predicate, object_ = parsed
    ends = {object_id for object_id, _ in fitting(object_)}
    return any(
        r.name == predicate and r.object in ends
        for _, found in fitting(subject)
        for r in found.relations
    )


@settings(max_examples=300, deadline=None)
@given(graph=graphs(), seed=st.integers(0, 3))
def test_positives_are_annotated_and_negatives_are_not(graph: SceneGraph, seed: int):
    groups: tuple[CaptionGroup, ...] = caption_groups(graph, TYPES, seed, 20).groups
    positives = [group.positive for group in groups]
    assert len(set(positives)) == len(positives)
    for group in groups:
        assert is_annotated(graph, group.positive)
        texts = [negative.caption for negative in group.negatives]
        assert texts
        assert len(set(texts)) == len(texts)
        assert not set(texts) & set(positives)
        for text in texts:
            assert not is_annotated(graph, text)
