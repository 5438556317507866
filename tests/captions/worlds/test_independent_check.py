"""Captions, parsed back from their text, against worlds in which everything is known.

A world is drawn first (worlds.py). Its scene graph tells a part of it, as people do
(annotating.py). Captions are made from the graph, parsed back from their text (parsing.py) and
judged by the world (judging.py): a positive must be true, a negative false. None of this knows
how hnc_ds proves or words anything.
"""

import random
from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hnc_ds.captions.groups import caption_groups
from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES, NEGATIVE_TYPES
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.captions.tables import count_tables
from hnc_ds.records import CaptionGroup, Relation, SceneGraph, SceneObject
from tests.captions.worlds.annotating import annotate
from tests.captions.worlds.claims import Either, Not, Number
from tests.captions.worlds.drawing import draw_world
from tests.captions.worlds.judging import AnnotatedFacts, Judge, WorldFacts
from tests.captions.worlds.lexicon import CONTACT, FORMS, SIDES
from tests.captions.worlds.parsing import parse
from tests.captions.worlds.placing import Box
from tests.captions.worlds.properties import PROPERTIES
from tests.captions.worlds.worlds import MAYBE, NO, YES, World

WORLDS = 2000
OTHER_TYPES = tuple(name for name in NEGATIVE_TYPES if name not in DEFAULT_TYPES)
FEWEST = 300
"""Negatives of each type that have to be there to be checked, in all worlds."""
RARE = {"obj_count": 240, "xor_logic_rel": 150}
"""They take two names of which there are several, and two things with two relations each."""


class Drawn(NamedTuple):
    """A world and what somebody tells of it."""

    world: World
    graph: SceneGraph


@pytest.fixture(scope="module")
def drawn() -> list[Drawn]:
    rng = random.Random(0)
    worlds = [draw_world(rng) for _ in range(WORLDS)]
    return [Drawn(world, annotate(rng, world, str(k))) for k, world in enumerate(worlds)]


def test_the_graphs_are_as_dense_as_gqas(drawn: list[Drawn]) -> None:
    objects = [found for one in drawn for found in one.graph.objects.values()]
    assert 15 < len(objects) / WORLDS < 18
    assert 45 < sum(len(found.relations) for found in objects) / WORLDS < 55
    assert sum(len(found.attributes) > 1 for found in objects) > len(objects) / 4
    names = [[found.name for found in one.graph.objects.values()] for one in drawn]
    assert sum(len({*one}) < len(one) for one in names) > WORLDS / 2


@pytest.mark.parametrize("how", ["plain", "other types", "tables", "open world"])
def test_in_drawn_worlds_every_positive_is_true_and_every_negative_false(
    drawn: list[Drawn], how: str
) -> None:
    tables = count_tables(one.graph for one in drawn) if how == "tables" else None
    options = Options(tables=tables, open_world=how == "open world")
    types = OTHER_TYPES if how == "other types" else DEFAULT_TYPES
    counts: Counter[str] = Counter()
    worlds = drawn if how == "plain" else drawn[: WORLDS // 2]
    for world, graph in worlds:
        judge = Judge(WorldFacts(world))
        for group in caption_groups(graph, types, 0, options).groups:
            check(judge, group)
            counts.update(n.type for n in group.negatives if not n.open_world)
    # The check would be idle without captions to check.
    share = len(worlds) / WORLDS
    assert not [name for name in types if counts[name] < share * RARE.get(name, FEWEST)], counts


def check(judge: Judge, group: CaptionGroup) -> None:
    """All captions of a group: true and unmistakable, or false."""
    claim, definite = parse(group.positive)
    assert judge.verdict(claim) is YES, group.positive
    for phrase in definite:
        assert [*judge.meant(phrase).values()] == [YES], (group.positive, phrase)
    for negative in group.negatives:
        verdict = judge.verdict(parse(negative.caption).claim)
        assert negative.open_world or verdict is NO, (negative, group.positive)


def test_captions_name_their_objects_and_the_words_that_were_exchanged(
    drawn: list[Drawn],
) -> None:
    for _, graph in drawn[:200]:
        names = [FORMS[graph.objects[one].name].lemma for one in sorted(graph.objects)]
        for types in (DEFAULT_TYPES, OTHER_TYPES):
            for group in caption_groups(graph, types, 0).groups:
                assert names_its_objects(names, group)
                for negative in group.negatives:
                    assert negative.objects
                    assert negative.replaced is not None
                    assert negative.replaced[0] in group.positive, negative
                    assert negative.replaced[1] in negative.caption, negative


def names_its_objects(names: list[str], group: CaptionGroup) -> bool:
    """Whether the objects of a positive are what it says 'the' of, or as many as it counts."""
    claim, definite = parse(group.positive)
    named = [names[number] for number in group.objects]
    if isinstance(claim, Number):
        return named == [claim.name] * claim.number
    return {phrase.name for phrase in definite} <= {*named} != set()


# ---- any graph at all, however contradictory its annotations

NAMES = (
    "dog", "dogs", "puppy", "animal", "person", "man", "people", "crowd", "cup", "mug", "glass",
    "glasses", "sunglasses", "box", "boxes", "sheep", "grass", "orange", "table", "desk", "tv",
)  # fmt: skip
ATTRIBUTES = sorted(
    {name for prop in PROPERTIES for value in prop.values[:4] for name in value.names}
)
EDGES = [*SIDES, *CONTACT[:12], "near", "next to", "hugging", "walking with", "pulling", "of"]


@st.composite
def graphs(draw: st.DrawFn) -> SceneGraph:
    count = draw(st.integers(0, 6))
    side = st.integers(-5, 120)
    boxes: st.SearchStrategy[Box] = st.tuples(side, side, side, side)
    boxes = boxes | st.sampled_from([(10, 10, 50, 50), (11, 10, 50, 50), (0, 0, 0, 0)])
    objects = {}
    for i in range(count):
        edges = st.tuples(st.sampled_from(EDGES), st.integers(0, count - 1))
        objects[str(i)] = SceneObject(
            draw(st.sampled_from(NAMES)),
            *draw(boxes),
            attributes=tuple(draw(st.lists(st.sampled_from(ATTRIBUTES), max_size=3))),
            relations=tuple(
                Relation(name=name, object=str(j))
                for name, j in draw(st.lists(edges, max_size=6))
                if i != j
            ),
        )
    return SceneGraph("1", 100, 100, objects)


@settings(max_examples=400, deadline=None)
@given(graph=graphs(), seed=st.integers(0, 3), types=st.sampled_from([DEFAULT_TYPES, OTHER_TYPES]))
def test_positives_are_annotated_and_negatives_are_not(
    graph: SceneGraph, seed: int, types: tuple[str, ...]
) -> None:
    groups = caption_groups(graph, types, seed, Options(most=20)).groups
    assert len(groups) <= 20
    judge = Judge(AnnotatedFacts(graph))
    positives = [group.positive for group in groups]
    assert len({*positives}) == len(positives)
    for group in groups:
        assert has_evidence(judge, group.positive), group
        texts = [negative.caption for negative in group.negatives]
        assert texts
        assert len({*texts}) == len(texts)
        assert not {*texts} & {*positives}
        for text in texts:
            claim = parse(text).claim
            # "There is no ..." and "either ..., or ..." are false by what is annotated.
            allowed = (NO,) if isinstance(claim, Not | Either) else (NO, MAYBE)
            assert judge.verdict(claim) in allowed, (group, text)


def has_evidence(judge: Judge, positive: str) -> bool:
    """Whether it is annotated; of "no" and "either": whether nothing annotated denies it."""
    claim = parse(positive).claim
    match claim:
        case Not():
            return judge.verdict(claim) is not NO
        case Either(first, second):
            return (judge.verdict(first), judge.verdict(second)) in {(YES, MAYBE), (MAYBE, YES)}
        case _:
            return judge.verdict(claim) is YES
