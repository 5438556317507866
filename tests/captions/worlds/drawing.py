"""Draws worlds (worlds.py): about 16 things, half of them with another one, and what they do."""

import random

from tests.captions.worlds.lexicon import COMMON, INVERSE, KINDS, MUTUAL, Kind
from tests.captions.worlds.placing import (
    ATTACHMENTS,
    WIDTH,
    Attachment,
    Box,
    drawn_box,
    gap,
    hull,
    place,
)
from tests.captions.worlds.properties import MANY_COLOURED, PROPERTIES
from tests.captions.worlds.worlds import MAYBE, NO, YES, Thing, Verdict, World

TOUCHING = 0.045
"""Boxes no further apart than this share of the width may touch."""
POSTURES = {
    "riding": "sitting",
    "sitting on": "sitting",
    "lying on": "lying",
    "standing on": "standing",
    "walking on": "walking",
    "walking down": "walking",
    "crossing": "walking",
    "grazing": "standing",
    "perched on": "perched",
    "leaning": "standing",
    "at": "sitting",
    "swimming in": "swimming",
    "flying": "flying",
    "driving": "sitting",
}

_AT_REST = ("standing", "sitting", "lying")
"""As the values of the property."""
_LOOKS_LIKE = {
    "walking": ("standing", "running"),
    "perched": ("standing", "sitting", "seated"),
    "swimming": ("lying", "lying down", "sitting", "seated"),
}
"""Arguable claims about who does something else."""

_FOR_ONE = ("boards", "cycles")
"""Who rides one rides it alone."""


def draw_world(rng: random.Random) -> World:
    """About 16 things, half of them on, in, under or with another one."""
    world = World()
    for _ in range(max(2, round(rng.gauss(14, 5)))):
        fitting = _attachable(rng, world) if rng.random() < 0.5 else None
        if fitting is None:
            name = rng.choice(COMMON) if rng.random() < 0.5 else rng.choice(list(KINDS))
            _add(rng, world, KINDS[name], drawn_box(rng, KINDS[name].group))
        else:
            _attach(rng, world, *fitting)
    for thing in world.things[:2]:  # and more of their kind
        for _ in range(rng.choice([0, 0, 1, 2, 3])):
            _add(rng, world, thing.kind, drawn_box(rng, thing.kind.group))
    if rng.random() < 0.2:
        _add_group(rng, world)
    _act(rng, world)
    for thing in world.things:  # groups come after their members
        members = [world.attributes[m] for m in thing.members]
        world.attributes.append(_shared(members) if members else _attributes(thing))
    _note_neighbours(world)
    return world


def _add(rng: random.Random, world: World, kind: Kind, box: Box, posture: str = "") -> int:
    several = rng.random() < 0.12 and kind.group != "parts"
    thing = Thing(kind, rng.randint(2, 5) if several else 1, box, rng.random())
    for prop in PROPERTIES:
        if kind.group in prop.of or kind.name in prop.of:
            thing.values[prop.name] = [rng.randrange(len(prop.values))]
    if kind.group in ("people", "animals"):
        thing.posture = posture or rng.choice(_AT_REST)
        thing.values["posture"] = (
            [_AT_REST.index(thing.posture)] if thing.posture in _AT_REST else []
        )
    _perhaps_second_values(rng, thing)
    world.things.append(thing)
    return len(world.things) - 1


def _perhaps_second_values(rng: random.Random, thing: Thing) -> None:
    """Striped things have two colours, others now and then."""
    for prop in PROPERTIES:
        if prop.several and prop.name in thing.values and prop.name != "tone":
            likely = prop.name == "colour" and _is_many_coloured(thing)
            if rng.random() < (0.8 if likely else 0.08):
                second = rng.randrange(len(prop.values))
                thing.values[prop.name] = sorted({*thing.values[prop.name], second})


def _is_many_coloured(thing: Thing) -> bool:
    return thing.kind.name in MANY_COLOURED or not pattern_of(thing).isdisjoint(MANY_COLOURED)


def pattern_of(thing: Thing) -> set[str]:
    """All names of its patterns."""
    values = next(p.values for p in PROPERTIES if p.name == "pattern")
    return {name for i in thing.values.get("pattern", []) for name in values[i].names}


def _attachable(rng: random.Random, world: World) -> tuple[Attachment, int, Kind] | None:
    """(how, host, kind of the new thing) for a random host, if anything goes with it."""
    if not world.things:
        return None
    host = rng.randrange(len(world.things))
    kind = world.things[host].kind
    if kind.group in _FOR_ONE and any(host == other for _, other in world.links):
        return None
    options = [a for a in ATTACHMENTS if kind.group in a.hosts or kind.name in a.hosts]
    if not options:
        return None
    how = rng.choice(options)
    new = [k for k in KINDS.values() if k.group in how.new or k.name in how.new]
    return how, host, rng.choice(new)


def _attach(rng: random.Random, world: World, how: Attachment, host: int, kind: Kind) -> None:
    box = place(rng, how.name, drawn_box(rng, kind.group), world.things[host].box)
    if box is None:
        return
    on_board = how.name == "riding" and world.things[host].kind.group == "boards"
    posture = "sitting" if "driving" in how.sure else POSTURES.get(how.name, "")
    new = _add(rng, world, kind, box, "standing" if on_board else posture)
    _state(world, how, new, host)
    if how.name in ("wearing", "holding", "eating"):
        world.things[new].depth = world.things[host].depth
    if how.name == "holding" and kind.name == "kite":  # by a string: others, too, from anywhere
        others = [i for i, t in enumerate(world.things) if t.kind.group == "people"]
        world.state(rng.choice(others), "holding", new)


def _state(world: World, how: Attachment, new: int, host: int) -> None:
    """All that follows from one thing being on, in, with ... another."""
    for subject, object_, sure, arguable in (
        (new, host, how.sure, how.arguable),
        (host, new, how.sure_back, how.arguable_back),
    ):
        for predicate in sure:
            world.state(subject, predicate, object_)
        for predicate in arguable:
            world.state(subject, predicate, object_, MAYBE)
    world.links |= {(new, host), (host, new)}
    if how.name == "inside":
        world.nested |= {(new, host), (host, new)}
    _pass_on(world, new, host)


def _pass_on(world: World, new: int, host: int) -> None:
    """What is on a tray on a table may be on the table, if it is close to it."""
    for predicate in ("on", "in", "on top of"):
        for (below, ground), facts in list(world.facts.items()):
            if below != host or ground == new or not facts.get("on", facts.get("in", NO)):
                continue
            if gap(world.things[new].box, world.things[ground].box) < TOUCHING * WIDTH:
                world.state(new, predicate, ground, MAYBE)


def _add_group(rng: random.Random, world: World) -> None:
    """Namesakes, annotated once more under one name in the plural."""
    for lemma in rng.sample(sorted(COMMON), len(COMMON)):
        found = tuple(i for i, t in enumerate(world.things) if t.called(lemma) is YES and t.number)
        if len(found) > 1:
            boxes = [world.things[i].box for i in found]
            depth = sum(world.things[i].depth for i in found) / len(found)
            world.things.append(Thing(KINDS[lemma], 0, hull(boxes), depth, members=found))
            return


def _act(rng: random.Random, world: World) -> None:
    """People and animals do something with other things."""
    actors = [
        i for i, t in enumerate(world.things) if t.kind.group in ("people", "animals") and t.number
    ]
    for i in actors:
        j = rng.randrange(len(world.things))
        if i == j or (i, j) in world.links or world.things[j].members:
            continue
        deed = rng.choice(
            ["looking at", "watching", "pulling", "pushing", "kicking", "swinging at"]
        )
        if deed == "kicking" and any(j in pair for pair in world.links):
            deed = "looking at"  # another one may hold it
        if j in actors:
            deed = rng.choice(["walking with", "talking to", "looking at", "following"])
            if gap(world.things[i].box, world.things[j].box) < 0:
                deed = "hugging"
            if deed == "walking with" and not _set_off(world, i, j):
                deed = "talking to"
        world.state(i, deed, j)
        back = deed if deed in MUTUAL else INVERSE.get(deed)
        if back is not None:
            world.state(j, back, i)
        if deed == "following":
            world.state(j, "leading", i, MAYBE)


def _set_off(world: World, *pair: int) -> bool:
    """Let two walk who stand about or do so already."""
    things = [world.things[i] for i in pair]
    at_home = {i for i, _ in world.links}
    for i, thing in zip(pair, things, strict=True):
        if thing.posture != "walking" and (thing.posture != "standing" or i in at_home):
            return False
    for thing in things:
        thing.posture = "walking"
        thing.values["posture"] = []
    return True


def _attributes(thing: Thing) -> dict[str, Verdict]:
    found: dict[str, Verdict] = {}
    for prop in PROPERTIES:
        for number in thing.values.get(prop.name, []):
            value = prop.values[number]
            found |= dict.fromkeys(value.arguable, MAYBE) | found
            found |= dict.fromkeys(value.names, YES)
    if thing.posture:
        found |= dict.fromkeys(_LOOKS_LIKE.get(thing.posture, ()), MAYBE) | {thing.posture: YES}
    return found


def _shared(members: list[dict[str, Verdict]]) -> dict[str, Verdict]:
    """What is true of all is true of the group; what is true of some can be argued about."""
    names = {name for names_of in members for name in names_of}
    return {n: max(MAYBE, min(names_of.get(n, NO) for names_of in members)) for n in names}


def _note_neighbours(world: World) -> None:
    """Adds that things lie close together."""
    for i, a in enumerate(world.things):
        for j, b in enumerate(world.things):
            if i != j and (i, j) not in world.nested and gap(a.box, b.box) < 0.03 * WIDTH:
                for predicate in ("near", "next to", "beside", "by"):
                    world.state(i, predicate, j)
