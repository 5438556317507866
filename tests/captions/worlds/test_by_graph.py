"""The judge by graph itself, and captions of graphs that no world is known of."""

import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from hnc_ds.captions.formats.scene_graphs import read_scene_graphs
from hnc_ds.records import CaptionGroup, Negative, Relation, SceneGraph, SceneObject
from speed.graphs import write_graphs
from tests.captions.worlds import judge_many, open_words
from tests.captions.worlds.by_graph import GraphJudge, grammar_of
from tests.captions.worlds.findings import Finding, Label

SHARED = Path(__file__).parents[4] / "shared" / "data"
REAL = SHARED / "real" / "gqa" / "gqa_18_sceneGraphs.json"
LIKE_GQA = SHARED / "gqa_like_graphs.json.gz"


def thing(name, box, attributes=(), **relations):
    edges = tuple(
        Relation(name=predicate.replace("_", " "), object=other)
        for predicate, other in relations.items()
    )
    return SceneObject(name, *box, attributes=attributes, relations=edges)


# A man rides a white horse on a road; a woman beside him wears a red hat; a dog under a table that
# without a colour; a person boxed once more; two cups; a bench whose edge is a slip.
GRAPH = SceneGraph(
    "1",
    1000,
    600,
    {
        "1": thing("man", (100, 100, 80, 200), ("tall",), riding="2"),
        "2": thing("horse", (60, 250, 200, 200), ("white",), on="3"),
        "3": thing("road", (0, 400, 1000, 200), ("paved",)),
        "4": thing("woman", (400, 150, 80, 250), (), wearing="5", holding="10"),
        "5": thing("hat", (410, 140, 50, 40), ("red",)),
        "6": thing("dog", (700, 450, 80, 60), (), under="7"),
        "7": thing("table", (650, 350, 200, 120), ("wooden",)),
        "8": thing("cup", (700, 320, 20, 30), ("blue",), on="7"),
        "9": thing("cup", (780, 320, 20, 30), ("blue", "empty"), on="7"),
        "10": thing("umbrella", (380, 60, 150, 100), ("black",)),
        "11": thing("people", (380, 140, 140, 270), ()),
        "12": thing("bench", (50, 520, 100, 60), ("green",), to_the_right_of="7"),
    },
)


def findings(caption: str, is_true: bool) -> Finding:
    judge = GraphJudge(GRAPH, grammar_of([GRAPH]))
    negatives = () if is_true else (Negative(caption, "type"),)
    positive = caption if is_true else "The man is riding the horse."
    return [*judge.findings(CaptionGroup(positive, "kind", negatives))][-1]


@pytest.mark.parametrize(
    ("caption", "label"),
    [
        ("The man is riding the horse.", Label.RIGHT),
        ("The man is on the horse.", Label.RIGHT),  # follows
        ("The horse is white.", Label.RIGHT),
        ("The table is made of wood.", Label.RIGHT),
        ("The wooden table is above the dog.", Label.RIGHT),  # the inverse
        ("The umbrella is to the left of the table.", Label.RIGHT),  # by boxes
        ("The horse is below the tall man.", Label.WRONG),  # boxes overlap too far
        ("The horse is black.", Label.WRONG),
        ("The horse is wet.", Label.WRONG),
        ("The man is wearing the hat.", Label.WRONG),
        ("The bench is to the right of the table.", Label.WRONG),  # against the boxes
        ("The cup is on the table.", Label.WRONG),  # which cup?
        ("The empty cup is on the table.", Label.WRONG),  # the other one may be empty
        ("A cup is on the table.", Label.RIGHT),
        ("There are two cups.", Label.RIGHT),
        ("There are two blue cups.", Label.RIGHT),
        ("There are two empty cups.", Label.WRONG),
        ("There is one cup.", Label.WRONG),
        ("There is one man.", Label.WRONG),  # of the people one may be
        ("There are more cups than tables.", Label.RIGHT),
        ("There is at least one cup that is blue.", Label.RIGHT),
        ("There is no cup that is red.", Label.RIGHT),
        ("There is no cup that is blue.", Label.WRONG),
        ("There is no cup that is dirty.", Label.UNPROVEN),
        ("There is both a white horse and a red hat.", Label.RIGHT),
        ("There is both a white horse and a blue hat.", Label.WRONG),
        ("There is either a white horse or a blue hat.", Label.RIGHT),
        ("There is either a white horse or a red hat.", Label.WRONG),
        ("There is either a white horse or a large hat.", Label.UNPROVEN),
        ("The dog is under either the table or the horse.", Label.UNPROVEN),
        ("The horse is both white and on the road.", Label.RIGHT),
    ],
)
def test_labels_true_are_judged_by_the_graph(caption, label):
    assert findings(caption, True).label is label


@pytest.mark.parametrize(
    ("caption", "label"),
    [
        ("The horse is black.", Label.RIGHT),
        ("The horse is white.", Label.WRONG),
        ("The horse is gray.", Label.UNPROVEN),  # arguable of a white one
        ("The horse is wet.", Label.UNPROVEN),
        ("The man is wearing the hat.", Label.UNPROVEN),  # one of the people may be
        ("The person is wearing the hat.", Label.WRONG),
        ("The man is under the horse.", Label.RIGHT),
        ("The man is on the horse.", Label.WRONG),
        ("The horse is riding the man.", Label.RIGHT),
        ("The dog is on the table.", Label.RIGHT),
        ("The table is under the dog.", Label.RIGHT),
        ("The dog is below the table.", Label.WRONG),
        ("The dog is to the left of the man.", Label.RIGHT),
        ("The man is to the left of the dog.", Label.WRONG),
        ("The woman is holding the cup.", Label.RIGHT),  # too far away
        ("The woman is looking at the cup.", Label.UNPROVEN),
        ("There are three cups.", Label.RIGHT),
        ("There are two cups.", Label.WRONG),
        ("There are fewer cups than tables.", Label.RIGHT),
        ("There is no cup that is blue.", Label.RIGHT),
        ("There is no cup that is red.", Label.WRONG),
        ("There is at least one cup that is red.", Label.RIGHT),
        ("There is both a black horse and a red hat.", Label.RIGHT),
        ("There is both a white horse and a red hat.", Label.WRONG),
        ("There is either a white horse or a red hat.", Label.RIGHT),
        ("There is either a white horse or a blue hat.", Label.WRONG),
        ("The horse is both white and on the table.", Label.RIGHT),
    ],
)
def test_labels_false_are_judged_by_the_graph(caption, label):
    assert findings(caption, False).label is label


def test_a_predicate_that_only_another_thing_of_the_name_could_have_is_no_proof():
    """Of two men one wears a hat: which one is 'the man' is not known."""
    graph = SceneGraph(
        "1",
        600,
        400,
        {
            "1": thing("man", (0, 0, 100, 300), (), wearing="3"),
            "2": thing("guy", (300, 0, 100, 300)),
            "3": thing("hat", (20, 0, 40, 30)),
        },
    )
    judge = GraphJudge(graph, grammar_of([graph]))
    group = CaptionGroup(
        "A man is wearing the hat.", "", (Negative("A guy is wearing the hat.", ""),)
    )
    assert [found.label for found in judge.findings(group)] == [Label.RIGHT, Label.WRONG]


def test_words_and_their_numbers():
    assert [open_words.one_of(n) for n in ("wine glasses", "men", "jeans", "buses", "leaves")] == [
        "wine glass", "man", "jeans", "bus", "leaf",
    ]  # fmt: skip
    for name in ("knife", "tomato", "baby", "woman", "bench", "sheep", "box", "cherry", "fish"):
        assert open_words.one_of(open_words.many_of(name)) == name


def judged(graphs: Iterable[SceneGraph]) -> Counter[Label]:
    """All findings about graphs, which must not hold a wrong label."""
    counts: Counter[Label] = Counter()
    for way, finding in judge_many.of_graphs([*graphs], 0):
        assert finding.label is not Label.WRONG, (way, finding)
        counts[finding.label] += 1
    return counts


@pytest.mark.slow
def test_labels_of_drawn_graphs_are_right(tmp_path: Path) -> None:
    path = write_graphs(tmp_path / "drawn_sceneGraphs.json", 25, random.Random(7).randrange(100))
    counts = judged(read_scene_graphs(path))
    assert counts[Label.RIGHT] > 6_000
    assert counts[Label.UNPROVEN] < counts.total() / 100


@pytest.mark.parametrize("path", [REAL, LIKE_GQA], ids=lambda path: path.name)
def test_labels_of_real_and_gqa_like_graphs_are_right(path: Path) -> None:
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    graphs = [*read_scene_graphs(path)][:25]
    counts = judged(graphs)
    assert counts[Label.RIGHT] > 100 * len(graphs)
    assert counts[Label.UNPROVEN] < counts.total() / 100
