"""Balance over the data set: of every change as many as of its reverse, in every context."""

import random
from collections import Counter, defaultdict
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnc_ds.captions.balance import (
    FROM_PRIOR,
    FULL,
    LEVELS,
    PRIOR,
    Balance,
    Prior,
    Quotas,
    Tally,
    keys_of,
)
from hnc_ds.captions.first_pass import tally_of, write_tables
from hnc_ds.captions.formats.captions import read_captions
from hnc_ds.captions.formats.scene_graphs import read_scene_graphs
from hnc_ds.captions.generate import generate
from hnc_ds.captions.groups import MIN_SIDES, VERY_FEW_PAIRS, caption_groups
from hnc_ds.captions.negatives.negative_types import DEFAULT_TYPES
from hnc_ds.captions.negatives.salience import SIDES
from hnc_ds.captions.negatives.statements import Options
from hnc_ds.captions.tables import read_tables
from hnc_ds.config import GenerateConfig, TablesConfig
from speed.graphs import write_graphs

DATA = Options(balance="data", max_groups=64)


class Change(msgspec.Struct, frozen=True):
    """A proposal without captions."""

    words: tuple[str, str]
    contexts: tuple[str, ...]
    narrow: int = 1
    prior: Prior | None = None


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


@pytest.mark.slow
@given(CHANGES, st.integers(0, 3))
def test_counts_do_not_depend_on_how_the_work_was_shared(changes: list[Named], seed: int) -> None:
    whole = balance_of(changes)
    shuffled = random.Random(seed).sample(changes, len(changes))
    tally = Tally()
    for start in range(0, len(shuffled), 7):
        part = Tally()
        part.add(*keys_of(shuffled[start : start + 7]))
        tally.add_counts(*part.counts())
        if start % 3 == 0:
            tally.counts()  # merges, as a full tally does
    assert tally.balance() == whole


def test_what_is_balanced_by_itself_is_kept_and_what_was_never_met_is_not() -> None:
    quotas = Quotas(balance_of([("object", Change(("a", "b"), ("c",)))]))
    alone = ("object", Change(("", ""), ()))
    assert quotas.kept([alone, ("object", Change(("x", "y"), ("c",)))]) == [1.0, 0.0]


COUNTED = st.integers(0, 500)
SHARE = st.floats(0.001, 0.9)


@given(COUNTED, COUNTED, SHARE, SHARE, SHARE, SHARE)
def test_what_the_prior_keeps_is_as_often_expected_of_a_change_as_of_its_reverse(
    a: int, b: int, share_a: float, share_b: float, there: float, back: float
) -> None:
    one = Prior(("a", "b"), (share_a, share_b), (there, back)).kept(a, b)
    other = Prior(("b", "a"), (share_b, share_a), (back, there)).kept(b, a)
    proposed = (a + PRIOR * share_a) * there, (b + PRIOR * share_b) * back
    np.testing.assert_allclose(proposed[0] * one, proposed[1] * other)
    assert max(one, other) == 1


def test_the_prior_decides_of_few_changes_and_the_counts_of_many() -> None:
    """white -> purple, of which the graphs hold no counterpart: as often as things are purple, by
    GQA's counts and their own."""
    change = Change(("white", "purple"), ("c",), 1, Prior(("white", "purple"), (0.4, 0.1), (1, 1)))
    for proposed, share in ((9, 1.0), (FROM_PRIOR, 1.0), (10 * FROM_PRIOR, 0.1)):
        tally = Tally()
        tally.add(*keys_of([("attribute", change)] * proposed))
        tally.add(*keys_of([], ["white"] * 18 + ["purple"] * 2))
        balance = tally.balance()
        assert balance.changes == proposed
        [kept] = Quotas(balance).kept([("attribute", change)])
        assert abs(kept - share * 5 / 30) < 0.001, proposed
        assert Quotas(balance).kept([("object", change)]) == [0]  # of which nothing was counted


def test_an_image_that_balance_would_leave_with_little_has_ten_pairs(tmp_path: Path) -> None:
    graphs = [*read_scene_graphs(write_graphs(tmp_path / "few_sceneGraphs.json", 12, seed=6))]
    nothing = Quotas(Tally().balance())
    for graph in graphs:
        groups = caption_groups(graph, DEFAULT_TYPES, 0, DATA, nothing).groups
        assert sum(len(group.negatives) for group in groups) >= VERY_FEW_PAIRS


@pytest.mark.slow
def test_over_many_images_words_stand_as_often_in_true_captions_as_in_false_ones(
    tmp_path: Path,
) -> None:
    """Of each type that changes one word: its numbers before and after, to within chance."""
    path = write_graphs(tmp_path / "random_sceneGraphs.json", 250, seed=3)
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
        assert sum(pairs) <= max(MIN_SIDES, len(pairs) / 2)
    assert seen > 60


@pytest.mark.slow
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
