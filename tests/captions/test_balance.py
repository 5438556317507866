"""Balance over the data set: of every change as many as of its reverse, in every context."""

import random
from collections import Counter, defaultdict
from pathlib import Path

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.graphs import write_graphs
from hnc_ds.captions.balance import FULL, LEVELS, Balance, Quotas, Tally, keys_of
from hnc_ds.captions.first_pass import tally_of, write_tables
from hnc_ds.captions.formats.captions import read_captions
from hnc_ds.captions.formats.scene_graphs import read_scene_graphs
from hnc_ds.captions.generate import generate
from hnc_ds.captions.groups import FEWEST_SIDES, caption_groups
from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES
from hnc_ds.captions.negatives.salience import SIDES
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.captions.tables import read_tables
from hnc_ds.config import GenerateConfig, TablesConfig

DATA = Options(balance="data", most=64)


class Change(msgspec.Struct, frozen=True):
    """A proposal without captions."""

    words: tuple[str, str]
    contexts: tuple[str, ...]
    narrow: int = 1


Named = tuple[str, Change]

CHANGES = st.lists(
    st.builds(
        lambda type_, a, b, narrow, wide: (type_, Change((a, b), (narrow + wide, wide, ""))),
        st.sampled_from(["attribute", "object"]),
        *[st.sampled_from("red white blue".split())] * 2,
        st.sampled_from(["big ", "small "]),
        st.sampled_from(["horse", "bus"]),
    ).filter(lambda named: named[1].words[0] != named[1].words[1]),
    max_size=80,
)


def balance_of(changes: list[Named]) -> Balance:
    tally = Tally()
    tally.add(*keys_of(changes))
    return tally.balance()


@given(CHANGES)
def test_within_the_widest_context_as_much_is_kept_of_a_change_as_of_its_reverse(
    changes: list[Named],
) -> None:
    kept: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    for (type_, change), share in zip(
        changes, Quotas(balance_of(changes)).kept(changes), strict=True
    ):
        assert 0 <= share <= 1
        kept[(type_, *change.words)] += share
    for (type_, a, b), much in [*kept.items()]:
        assert abs(much - kept[type_, b, a]) <= 3 * len(changes) / FULL
    # As much as balance allows: all of the rarer side.
    counts = Counter((type_, *change.words) for type_, change in changes)
    for (type_, a, b), count in counts.items():
        least = min(count, counts[type_, b, a])
        assert abs(kept[type_, a, b] - least) <= 3 * len(changes) / FULL


@given(CHANGES)
def test_what_a_narrow_context_can_balance_is_balanced_there(changes: list[Named]) -> None:
    """The first level alone keeps the smaller side of each narrow context whole."""
    first = Quotas(msgspec.structs.replace(
        balance_of(changes), levels=balance_of(changes).levels[:1] + (NOTHING,) * (LEVELS - 1)
    ))  # fmt: skip
    kept: defaultdict[tuple[str, str, str, str], float] = defaultdict(float)
    for (type_, change), share in zip(changes, first.kept(changes), strict=True):
        kept[(type_, change.contexts[0], *change.words)] += share
    for (type_, context, a, b), much in [*kept.items()]:
        assert abs(much - kept[type_, context, b, a]) <= 2 * len(changes) / FULL


NOTHING = balance_of([]).levels[0]


@given(CHANGES, st.integers(0, 3))
def test_counts_do_not_depend_on_how_the_work_was_shared(changes: list[Named], seed: int) -> None:
    whole = balance_of(changes)
    shuffled = random.Random(seed).sample(changes, len(changes))
    tally = Tally()
    for start in range(0, len(shuffled), 7):
        part = Tally()
        part.add(*keys_of(shuffled[start : start + 7]))
        tally.add_counts(*part.counts())
    assert tally.balance() == whole


def test_what_is_balanced_by_itself_is_kept_and_what_was_never_met_is_not() -> None:
    quotas = Quotas(balance_of([("object", Change(("a", "b"), ("c",)))]))
    alone = ("object", Change(("", ""), ()))
    assert quotas.kept([alone, ("object", Change(("x", "y"), ("c",)))]) == [1.0, 0.0]


def test_over_many_images_words_stand_as_often_in_true_captions_as_in_false_ones(
    tmp_path: Path,
) -> None:
    """Of each type that changes one word: its numbers before and after, to within chance."""
    path = write_graphs(tmp_path / "random_sceneGraphs.json", 400, seed=3)
    graphs = list(read_scene_graphs(path))
    quotas = Quotas(tally_of(graphs, DEFAULT_TYPES, 0, DATA).balance())
    removed, added = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for graph in graphs:
        for group in caption_groups(graph, DEFAULT_TYPES, 0, DATA, quotas).groups:
            for negative in group.negatives:
                if negative.type in ("attribute", "relation_pred", "attribute_subg"):
                    assert negative.replaced is not None
                    removed[negative.type, negative.replaced[0]] += 1
                    added[negative.type, negative.replaced[1]] += 1
    common = [key for key in removed | added if removed[key] + added[key] > 60]
    assert len(common) > 12
    for key in common:
        both = removed[key] + added[key]
        assert abs(removed[key] - added[key]) < 4.5 * np.sqrt(both), (key, removed[key], added[key])


def test_left_and_right_are_on_at_most_half_of_the_pairs_about_relations(tmp_path: Path) -> None:
    path = write_graphs(tmp_path / "random_sceneGraphs.json", 60, seed=4)
    graphs = list(read_scene_graphs(path))
    quotas = Quotas(tally_of(graphs, DEFAULT_TYPES, 0, DATA).balance())
    relations = {name for name in DEFAULT_TYPES if name.startswith("relation")}
    seen = 0
    for graph in graphs:
        pairs = [
            negative.about in SIDES
            for group in caption_groups(graph, DEFAULT_TYPES, 0, DATA, quotas).groups
            for negative in group.negatives
            if negative.type in relations
        ]
        seen += len(pairs)
        assert sum(pairs) <= max(FEWEST_SIDES, len(pairs) / 2)
    assert seen > 60


def test_tables_of_the_same_graphs_stand_for_the_first_pass(tmp_path: Path) -> None:
    path = write_graphs(tmp_path / "random_sceneGraphs.json", 30, seed=5)
    own, given_, other = tmp_path / "own.jsonl", tmp_path / "given.jsonl", tmp_path / "other.jsonl"
    generate(GenerateConfig(scene_graphs=path, out=own, workers=1))
    tables = tmp_path / "tables.json.gz"
    write_tables(TablesConfig(scene_graphs=path, out=tables, workers=2))
    assert read_tables(tables).changes.changes > 0
    generate(GenerateConfig(scene_graphs=path, out=given_, tables=tables, workers=1))
    assert [*read_captions(own)] == [*read_captions(given_)]
    generate(GenerateConfig(scene_graphs=path, out=other, balance="image", workers=1))
    assert [*read_captions(own)] != [*read_captions(other)]
