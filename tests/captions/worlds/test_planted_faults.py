"""The independent check can fail: wrong rules planted in hnc_ds are found, each by wrong labels.

Faults are planted where the rule stands and in every module that imported it; what was found
before is forgotten (the rules are cached), and forgotten again afterwards.
"""

import random
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from types import ModuleType
from typing import Any

import pytest
from msgspec import structs

from hnc_ds.captions.formats.scene_graphs import read_scene_graphs
from hnc_ds.captions.language import attribute_classes, kinds, predicates, wording
from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.captions.truth import boxes, holds, indexed_graph
from hnc_ds.captions.truth.claims import HasAttribute, Related
from hnc_ds.records import SceneGraph
from speed.graphs import write_graphs
from tests.captions.worlds.annotating import annotate
from tests.captions.worlds.by_graph import GraphJudge, grammar_of
from tests.captions.worlds.by_world import WorldJudge
from tests.captions.worlds.captions_of import captions_of
from tests.captions.worlds.drawing import draw_world
from tests.captions.worlds.findings import Finding, Label
from tests.captions.worlds.judge_many import findings_of
from tests.captions.worlds.worlds import World

OPTIONS = Options(max_groups=60, balance="data")
WORLDS = 60


def _modules() -> list[ModuleType]:
    return [module for name, module in sys.modules.items() if name.startswith("hnc_ds.captions")]


def _forget() -> None:
    for module in _modules():
        for value in vars(module).values():
            if callable(getattr(value, "cache_clear", None)):
                value.cache_clear()


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[ModuleType, str, Any], None]]:
    """Puts something else in place of a rule, wherever it is used."""

    def put(module: ModuleType, name: str, fault: Any) -> None:
        rule = getattr(module, name)
        for user in _modules():
            if getattr(user, name, None) is rule:
                monkeypatch.setattr(user, name, fault)
        _forget()

    yield put
    monkeypatch.undo()
    _forget()


@pytest.fixture(scope="module")
def worlds() -> list[tuple[World, SceneGraph]]:
    rng = random.Random(1)
    drawn = [draw_world(rng) for _ in range(WORLDS)]
    return [(world, annotate(rng, world, str(k))) for k, world in enumerate(drawn)]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> list[SceneGraph]:
    path = write_graphs(tmp_path_factory.mktemp("drawn") / "sceneGraphs.json", 25, 2)
    return [*read_scene_graphs(path)]


def wrong_by_world(worlds: list[tuple[World, SceneGraph]]) -> Iterator[Finding]:
    for world, graph in worlds:
        judge = WorldJudge(world)
        for group in captions_of(graph, DEFAULT_TYPES, OPTIONS):
            yield from (f for f in findings_of(judge, group) if f.label is Label.WRONG)


def wrong_by_graph(graphs: list[SceneGraph]) -> Iterator[Finding]:
    grammar = grammar_of(graphs)
    for graph in graphs:
        judge = GraphJudge(graph, grammar)
        for group in captions_of(graph, DEFAULT_TYPES, OPTIONS):
            yield from (f for f in findings_of(judge, group) if f.label is Label.WRONG)


def _any_two(cls: object, a: str, b: str) -> bool:
    return a != b


def _same_name(name: str, other: str) -> bool:
    return name == other


def _everything_else(known: str, claim: str, animate: bool) -> bool:
    return known != claim


def _implies_both(predicate: str) -> frozenset[str]:
    return frozenset({predicate, "on"})


_clause = wording._clause


def _clause_of_the_left(claim: HasAttribute | Related) -> str:
    if isinstance(claim, Related):
        claim = structs.replace(claim, predicate="to the left of")
    return _clause(claim)


FAULTS: dict[str, tuple[ModuleType, str, Any]] = {
    "any other value of a class is excluded": (attribute_classes, "exclude", _any_two),
    "what is not annotated is false": (
        attribute_classes,
        "holds_of",
        lambda annotated, attribute: attribute in annotated,
    ),
    "a thing has one name": (kinds, "may_be_the_same", _same_name),
    "everything annotated excludes all else": (predicates, "excludes", _everything_else),
    "everything entails on": (predicates, "implied", _implies_both),
    "what is above is on no side": (indexed_graph, "refuting", lambda _: boxes.ABOVE),
    "single things are countable": (indexed_graph, "can_be_counted", lambda _: True),
    "all clauses are about the left": (wording, "_clause", _clause_of_the_left),
    "everything is refuted": (holds, "is_refuted", lambda graph, claim: True),
}
"""What is wrong -> where the rule is, its name and what is put in its place."""


@pytest.mark.slow
def test_without_a_fault_nothing_is_wrong(
    worlds: list[tuple[World, SceneGraph]], graphs: list[SceneGraph]
) -> None:
    assert [*wrong_by_world(worlds)] == []
    assert [*wrong_by_graph(graphs)] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_worlds_find_it(
    fault: str, plant: Callable[..., None], worlds: list[tuple[World, SceneGraph]]
) -> None:
    plant(*FAULTS[fault])
    assert len([*islice(wrong_by_world(worlds), 3)]) == 3


def test_worlds_find_what_no_graph_shows(
    plant: Callable[..., None], worlds: list[tuple[World, SceneGraph]]
) -> None:
    plant(boxes, "LARGER", 0.0)  # nothing is inside anything
    assert any(wrong_by_world(worlds))


@pytest.mark.parametrize("fault", FAULTS)
def test_graphs_find_it(fault: str, plant: Callable[..., None], graphs: list[SceneGraph]) -> None:
    plant(*FAULTS[fault])
    assert len([*islice(wrong_by_graph(graphs), 3)]) == 3


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("indefinite", lambda words: f"an {words}"),
        ("_clause", lambda claim: _clause(claim).replace("the ", "a ", 1)),
        ("_clause", lambda claim: _clause(claim).replace(" is ", " are ")),
    ],
)
def test_captions_that_cannot_be_read_are_found(
    name: str, fault: Any, plant: Callable[..., None], worlds: list[tuple[World, SceneGraph]]
) -> None:
    plant(wording, name, fault)
    assert any("cannot be read" in found.why for found in islice(wrong_by_world(worlds), 3))
