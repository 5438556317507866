"""What tables and the open world add."""

from collections import Counter

from hnc_ds.captions.groups import caption_groups
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.captions.tables import count_tables
from hnc_ds.records import SceneGraph
from tests.captions.negatives.small_scenes import (
    groups_of,
    in_a_row,
    over_seeds,
    thing,
)


def test_what_is_not_proven_is_written_in_the_open_world_only_and_tagged():
    objects = {
        "a": thing("star", (10, 10, 20, 20), ["red"], ("near", "b")),
        "b": thing("ring", (40, 10, 20, 20), ["large"]),
        "c": thing("cross", (10, 60, 20, 20), [], ("near", "d")),
        "d": thing("box", (40, 60, 20, 20)),
    }
    assert not over_seeds(objects, ("relation_subj", "object"))
    groups = [g for s in range(9) for g in groups_of(objects, seed=s, open_world=True)]
    found = {(g.positive, n.caption) for g in groups for n in g.negatives if n.open_world}
    assert ("The star is near the ring.", "The cross is near the ring.") in found
    assert ("The star is red.", "The ring is red.") in found
    proven = over_seeds(in_a_row())
    tagged = {
        n.caption
        for s in range(9)
        for g in groups_of(in_a_row(), seed=s, open_world=True)
        for n in g.negatives
        if n.open_world
    }
    assert tagged.isdisjoint({negative for _, _, negative in proven})


def test_no_either_rests_on_what_is_not_proven():
    objects = {
        str(i): thing(f"{c}star", (20 * i, 10, 9, 9), [c, "large"])
        for i, c in enumerate(["red", "blue", "green", "white"])
    }
    objects["9"] = thing("ring", (90, 90, 9, 9))
    for seed in range(20):
        for group in groups_of(objects, ("xor_logic_attr",), seed, open_world=True):
            assert not any(negative.open_world for negative in group.negatives)


def test_with_tables_values_of_things_elsewhere_are_drawn_as_often_as_they_occur():
    def image(image_id, colour):
        return SceneGraph(image_id, 100, 100, {"a": thing("star", (1, 1, 9, 9), [colour])})

    graphs = [image(str(i), ["red", "red", "red", "blue"][i % 4]) for i in range(2000)]
    options = Options(tables=count_tables(graphs))
    words = Counter()
    for graph in graphs:
        assert not caption_groups(graph, ("attribute",), 0).groups  # one thing: nothing to exchange
        for group in caption_groups(graph, ("attribute",), 0, options).groups:
            words[group.positive] += 1
            words.update(n.caption for n in group.negatives)
            assert len(group.negatives) == 1
            words[group.positive, "true"] += 1
    for colour in ("red", "blue"):
        text = f"The star is {colour}."
        assert 0.4 < words[text, "true"] / words[text] < 0.6


def test_with_tables_nothing_is_exchanged_that_nobody_would_say():
    objects = in_a_row()
    graph = SceneGraph("1", 100, 100, objects)
    usual = count_tables([graph])
    for _, _, negative in over_seeds(objects, ("object", "relation_subj"), tables=usual):
        assert " of the " in negative  # no star is ever yellow
    assert not over_seeds(objects, ("object", "attribute"), tables=usual)
