"""Captions, parsed back from their text, against worlds in which everything is known.

A world is drawn first (worlds.py). Its scene graph tells a part of it, as people do
(annotating.py). Captions are made from the graph, parsed back from their text (parsing.py) and
judged by the world (judging.py): a positive must be true, a negative false. None of this knows
how hnc_ds proves or words anything.
"""

import random
from collections import Counter
from typing import Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES, NEGATIVE_TYPES
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.captions.tables import count_tables
from hnc_ds.records import CaptionGroup, Relation, SceneGraph, SceneObject
from tests.captions.worlds.annotating import annotate
from tests.captions.worlds.by_world import WorldJudge
from tests.captions.worlds.captions_of import captions_of
from tests.captions.worlds.claims import Claim, Either, Not, Number
from tests.captions.worlds.drawing import draw_world
from tests.captions.worlds.findings import Label
from tests.captions.worlds.judge_many import MOST, ways_of
from tests.captions.worlds.judging import AnnotatedFacts, Judge
from tests.captions.worlds.lexicon import CONTACT, FORMS, LONG_TAIL, SIDES
from tests.captions.worlds.parsing import parse
from tests.captions.worlds.placing import Box
from tests.captions.worlds.properties import PROPERTIES
from tests.captions.worlds.worlds import MAYBE, NO, YES, World

WORLDS = 250
OTHER_TYPES = tuple(name for name in NEGATIVE_TYPES if name not in DEFAULT_TYPES)
FEWEST = 60
"""Negatives of each type that have to be there to be checked."""
RARE = {"xor_logic_rel": 2, "obj_count": 20}
"""They take two things with the same relation to two others each, and two names of several."""
RARE_OVER_DATA = {"obj_count": 20, "obj_comp_count": 1}
"""Few names there have numbers: two in one image hardly ever."""
OVER_DATA = Options(max_groups=MOST, balance="data")


class Drawn(NamedTuple):
    """A world and its annotations."""

    world: World
    graph: SceneGraph


@pytest.fixture(scope="module")
def drawn() -> list[Drawn]:
    rng = random.Random(0)
    worlds = [draw_world(rng) for _ in range(WORLDS)]
    return [Drawn(world, annotate(rng, world, str(k))) for k, world in enumerate(worlds)]


def test_the_graphs_are_as_dense_and_as_varied_as_gqas(drawn: list[Drawn]) -> None:
    objects = [found for one in drawn for found in one.graph.objects.values()]
    assert 15 < len(objects) / WORLDS < 18
    assert 45 < sum(len(found.relations) for found in objects) / WORLDS < 55
    assert sum(len(found.attributes) > 1 for found in objects) > len(objects) / 4
    names = [[found.name for found in one.graph.objects.values()] for one in drawn]
    assert sum(len({*one}) < len(one) for one in names) > WORLDS / 2
    predicates = Counter(relation.name for found in objects for relation in found.relations)
    assert len(predicates) > 80
    assert len({*LONG_TAIL} & {*predicates}) > 35
    assert len({name for found in objects for name in found.attributes}) > 80


@pytest.mark.slow
@pytest.mark.parametrize("how", ["over the data", "in the image", "other types", "with tables"])
def test_in_drawn_worlds_every_positive_is_true_and_every_negative_false(
    drawn: list[Drawn], how: str
) -> None:
    worlds = drawn if how in ("in the image", "other types") else drawn[: WORLDS // 2]
    options = ways_of(count_tables(one.graph for one in worlds)).get(how, Options())
    types = OTHER_TYPES if how == "other types" else DEFAULT_TYPES
    counts: Counter[str] = Counter()
    for world, graph in worlds:
        judge = WorldJudge(world)
        for group in captions_of(graph, types, options):
            for finding in judge.findings(group):
                assert finding.label is Label.RIGHT, (how, finding)
                counts[finding.type] += not finding.is_true
    # The check would be idle without captions to check.
    rare = RARE_OVER_DATA if how == "over the data" else RARE
    assert not [name for name in types if counts[name] < rare.get(name, FEWEST)], counts


def test_open_world_negatives_are_not_judged(drawn: list[Drawn]) -> None:
    """Their positives are true, and beside them stand proven ones that are false."""
    options = Options(open_world=True)
    counts: Counter[bool] = Counter()
    for world, graph in drawn[:60]:
        judge = WorldJudge(world)
        for group in captions_of(graph, DEFAULT_TYPES, options):
            assert all(finding.label is Label.RIGHT for finding in judge.findings(group))
            counts.update(negative.open_world for negative in group.negatives)
    assert min(counts[True], counts[False]) > FEWEST


@pytest.mark.slow
def test_captions_name_their_objects_and_the_words_that_were_exchanged(
    drawn: list[Drawn],
) -> None:
    for _, graph in drawn[:60]:
        names = [FORMS[graph.objects[one].name].lemma for one in sorted(graph.objects)]
        for types, options in ((DEFAULT_TYPES, OVER_DATA), (OTHER_TYPES, Options())):
            for group in captions_of(graph, types, options):
                assert names_its_objects(names, group)
                for negative in group.negatives:
                    assert negative.objects
                    assert negative.replaced is not None
                    assert negative.replaced[0] in group.positive, negative
                    assert negative.replaced[1] in negative.caption, negative


def names_its_objects(names: list[str], group: CaptionGroup) -> bool:
    """Whether the objects of a positive are its definite phrases, or as many as it counts."""
    claim, definite = parse(group.positive)
    named = [names[number] for number in group.objects]
    if isinstance(claim, Number):
        return named == [claim.counted.name] * claim.number
    return {phrase.name for phrase in definite} <= {*named} != set()


# ---- any graph at all, however contradictory its annotations

NAMES = (
    "dog", "dogs", "puppy", "animal", "person", "man", "people", "crowd", "cup", "mug", "glass",
    "glasses", "sunglasses", "box", "boxes", "sheep", "grass", "orange", "table", "desk", "tv",
)  # fmt: skip
ATTRIBUTES = sorted(
    {name for prop in PROPERTIES for value in prop.values[:4] for name in value.names}
)
EDGES = [
    *SIDES, *CONTACT[:16], *LONG_TAIL[:12], "near", "next to", "hugging", "walking with", "pulling",
    "of",
]  # fmt: skip


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


@settings(max_examples=200, deadline=None)
@given(
    graph=graphs(),
    seed=st.integers(0, 3),
    types=st.sampled_from([DEFAULT_TYPES, OTHER_TYPES]),
    balance=st.sampled_from(["image", "data"]),
)
def test_positives_are_annotated_and_negatives_are_not(
    graph: SceneGraph, seed: int, types: tuple[str, ...], balance: Literal["image", "data"]
) -> None:
    groups = [*captions_of(graph, types, Options(max_groups=20, balance=balance), seed)]
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
            assert may_be_false(judge, claim), (group, text)


def may_be_false(judge: Judge, claim: Claim) -> bool:
    """Whether what is annotated denies it, as "no" needs; of others: whether nothing states it."""
    match claim:
        case Not():
            return judge.verdict(claim) is NO
        case Either(first, second):  # both, or neither
            return (judge.verdict(first) is YES) == (judge.verdict(second) is YES)
        case _:
            return judge.verdict(claim) is not YES


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
