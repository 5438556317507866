"""The scene graph of a drawn world: a part of what is true, as people annotate it.

They name a man a person, forget most of what is true, box some things twice, and slip: but only so
that the slip can be seen, by another annotation or by the boxes.
"""

import random
from typing import NamedTuple

from hnc_ds.records import Relation, SceneGraph, SceneObject
from tests.captions.worlds.drawing import pattern_of
from tests.captions.worlds.lexicon import MASS, PLURAL_ONLY, SOFT, plural
from tests.captions.worlds.placing import HEIGHT, WIDTH, Box, centre
from tests.captions.worlds.properties import (
    MANY_COLOURED,
    NEVER_ANNOTATED,
    NOTED,
    PROPERTIES,
    Property,
)
from tests.captions.worlds.worlds import YES, Thing, World

SIDE_PAIRS = 2.5
"""Pairs of things tried, for each thing, as left and right of each other: 9 of 10 relations."""


class Annotated(NamedTuple):
    """One object of a scene graph."""

    thing: int
    name: str
    box: Box
    attributes: list[str]
    relations: list[tuple[str, int]]
    """Predicate, and the number of the object at the other end."""


def annotate(rng: random.Random, world: World, image_id: str) -> SceneGraph:
    """An annotator's scene graph of a world."""
    boxed = [_annotated(rng, world, i) for i in range(len(world.things))]
    boxed += [_annotated(rng, world, i) for i in range(len(boxed)) if rng.random() < 0.03]  # twice
    _add_sides(rng, world, boxed)
    _add_facts(rng, world, boxed)
    _slip(rng, world, boxed)
    ids = [str(1000 + number) for number in rng.sample(range(1000), len(boxed))]
    objects = {
        ids[number]: SceneObject(
            found.name,
            *found.box,
            attributes=tuple(found.attributes),
            relations=tuple(Relation(name=p, object=ids[j]) for p, j in found.relations),
        )
        for number, found in enumerate(boxed)
    }
    known = rng.random() < 0.97
    return SceneGraph(image_id, WIDTH * known, HEIGHT * known, objects)


def _annotated(rng: random.Random, world: World, i: int) -> Annotated:
    thing = world.things[i]
    x, y, w, h = thing.box
    box = [value + _shake(rng, side) for value, side in ((x, w), (y, h), (w, w), (h, h))]
    if rng.random() < 0.03:
        box[2:] = [0, 0]
    x, y, w, h = box
    name = _name(rng, thing)
    attributes = _shared(world, thing.members) if thing.members else _attributes(rng, thing, name)
    return Annotated(i, name, (x, y, w, h), attributes, [])


def _shake(rng: random.Random, side: int) -> int:
    """By how much a hand misses one edge of a box."""
    return round(rng.uniform(-0.02, 0.02) * min(side, 100))


def _name(rng: random.Random, thing: Thing) -> str:
    """Mostly the narrowest name that is true of it; in the plural if it is several."""
    kind = thing.kind
    wider = sorted(kind.names - {kind.name} - ({"glasses"} if kind.name == "glass" else set()))
    lemma = rng.choice(wider) if wider and rng.random() < 0.25 else kind.name
    if lemma in PLURAL_ONLY or lemma in MASS:
        return lemma
    several = thing.number not in (1, None) or (thing.number is None and rng.random() < 0.1)
    return plural(lemma) if several else lemma


def _attributes(rng: random.Random, thing: Thing, called: str) -> list[str]:
    attributes = [name for prop in PROPERTIES for name in _values(rng, thing, prop, called)]
    if rng.random() < 0.1:
        attributes.append(rng.choice(NOTED))
    if rng.random() < 0.05:
        attributes.append(_contradiction(rng, thing, attributes))
    rng.shuffle(attributes)
    return [name for name in dict.fromkeys(attributes) if name]


def _values(rng: random.Random, thing: Thing, prop: Property, called: str) -> list[str]:
    """Annotated values of a property: all, or one where the name implies more."""
    values = [prop.values[i].names for i in thing.values.get(prop.name, [])]
    patterned = not pattern_of(thing).isdisjoint(MANY_COLOURED)
    striking = prop.name == "pattern" and patterned
    if not striking and rng.random() > prop.annotated:
        return []
    if prop.name == "colour" and values and (patterned or called in MANY_COLOURED):
        values = [rng.choice(values)]
    return [rng.choice(names) for names in values if names[0] not in NEVER_ANNOTATED]


def _contradiction(rng: random.Random, thing: Thing, attributes: list[str]) -> str:
    """A value that is wrong, beside the right one: 'open' and 'closed'."""
    for prop in rng.sample(PROPERTIES, len(PROPERTIES)):
        own = thing.values.get(prop.name, [])
        if own and not prop.several and not {*prop.values[own[0]].names}.isdisjoint(attributes):
            likely = {*prop.values[own[0]].arguable, *NEVER_ANNOTATED}
            had = {*prop.values[own[0]].names}
            others = [
                value.names[0]
                for k, value in enumerate(prop.values)
                if k not in own and had.isdisjoint(value.arguable)
            ]
            others = [name for name in others if name not in likely]
            return rng.choice(others) if others else ""
    return ""


def _shared(world: World, members: tuple[int, ...]) -> list[str]:
    """Annotated attributes of a group: the values that all have, and no others of that property."""
    values = [world.things[i].values for i in members]
    same = [p for p in PROPERTIES if all(v.get(p.name) == values[0].get(p.name) for v in values)]
    names = [prop.values[i].names[0] for prop in same for i in values[0].get(prop.name, [])]
    return [name for name in names if name not in NEVER_ANNOTATED]


def _add_sides(rng: random.Random, world: World, found: list[Annotated]) -> None:
    """Left and right, mostly from both ends."""
    for _ in range(round(SIDE_PAIRS * len(found))):
        one, other = rng.randrange(len(found)), rng.randrange(len(found))
        if world.related(found[one].thing, "to the left of", found[other].thing) is YES:
            found[one].relations.append(("to the left of", other))
            if rng.random() < 0.9:
                found[other].relations.append(("to the right of", one))


def _add_facts(rng: random.Random, world: World, objects: list[Annotated]) -> None:
    """What things do with each other, and now and then what lies above or behind what."""
    for found in objects:
        for other, end in enumerate(objects):
            facts = world.facts.get((found.thing, end.thing), {})
            sure = [p for p, verdict in facts.items() if verdict is YES]
            deeds = [p for p in sure if p not in SOFT]
            if deeds and rng.random() < 0.6:
                some = rng.sample(deeds, rng.choice([1, 1, len(deeds)]))
                found.relations.extend((p, other) for p in some)
            elif sure and rng.random() < 0.04:
                found.relations.append((rng.choice(sure), other))
    for _ in range(len(objects) // 2):
        one, other = rng.randrange(len(objects)), rng.randrange(len(objects))
        i, j = objects[one].thing, objects[other].thing
        predicate = rng.choice(["above", "below", "in front of", "behind", "larger than"])
        if rng.random() < 0.3 and world.things[i].posture:
            predicate = (
                f"{world.things[i].posture} {rng.choice(['near', 'next to', 'behind', 'by'])}"
            )
        if (i, j) not in world.links and world.related(i, predicate, j) is YES:
            objects[one].relations.append((predicate, other))


def _slip(rng: random.Random, world: World, found: list[Annotated]) -> None:
    """Wrong edges: to a side that the boxes deny, or against a right edge."""
    one, other = rng.randrange(len(found)), rng.randrange(len(found))
    a, b = found[one], found[other]
    if a.thing == b.thing or (a.thing, b.thing) in world.links or min(a.box[2], b.box[2]) <= 0:
        return
    if a.box[0] + a.box[2] < b.box[0] and centre(a.box)[0] + 0.1 * WIDTH < centre(b.box)[0]:
        a.relations.append(("to the right of", other))
    front = "in front of" if world.things[a.thing].depth < world.things[b.thing].depth else "behind"
    if rng.random() < 0.3:
        a.relations.extend(
            [(front, other), ({"behind": "in front of"}.get(front, "behind"), other)]
        )
