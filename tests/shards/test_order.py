"""The order is a pure function, so it is tested as one: no files, no ranks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnc_ds.shards.order import (
    NO_NEIGHBOR,
    MixedOrder,
    PairedOrder,
    SampleOrder,
    Visit,
    interleaved,
)

sizes = st.lists(st.integers(1, 9), min_size=1, max_size=7)


def paired(shards: list[int], seed: int = 1, block: int = 2, k: int = 3) -> PairedOrder:
    """Pairs in which the nearest of a sample are the next ones, around the end."""
    nearest = (np.arange(sum(shards))[:, None] + np.arange(1, k + 1)) % sum(shards)
    return PairedOrder(SampleOrder(shards, seed, block), nearest.astype(np.int32), seed)


@given(sizes, st.integers(0, 5), st.integers(0, 4))
def test_every_epoch_visits_every_sample_once(shards: list[int], seed: int, block: int) -> None:
    total = sum(shards)
    visits = SampleOrder(shards, seed, block).visits(0, 3 * total)
    for epoch in range(3):
        samples = [v.sample for v in visits[epoch * total : (epoch + 1) * total]]
        assert sorted(samples) == list(range(total))
        assert {v.epoch for v in visits[epoch * total : (epoch + 1) * total]} == {epoch}


@given(sizes, st.integers(0, 40), st.integers(1, 30))
def test_any_stretch_is_what_the_whole_stream_holds_there(
    shards: list[int], start: int, count: int
) -> None:
    whole = SampleOrder(shards, 1, 2).visits(0, start + count)
    assert SampleOrder(shards, 1, 2).visits(start, count) == whole[start:]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_a_step_without_gap_or_repetition(ranks: int) -> None:
    batch, order = 8, SampleOrder([5, 7, 4], 3, 2)
    for step in range(6):
        shared = [
            visit
            for rank in range(ranks)
            for visit in SampleOrder([5, 7, 4], 3, 2).visits(
                step * batch + rank * batch // ranks, batch // ranks
            )
        ]
        assert shared == order.visits(step * batch, batch)


def test_samples_are_mixed_only_within_a_block_of_shards() -> None:
    order = SampleOrder([10] * 6, 0, 2)
    for start in (0, 20, 40):
        shards = {visit.sample // 10 for visit in order.visits(start, 20)}
        assert len(shards) == 2


def test_shards_and_samples_change_places_from_epoch_to_epoch() -> None:
    order = SampleOrder([10] * 6, 0, 2)
    first, second = order.visits(0, 60), order.visits(60, 60)
    assert [v.sample for v in first] != [v.sample for v in second]
    assert {v.sample // 10 for v in first[:20]} != {v.sample // 10 for v in second[:20]}


def test_block_zero_mixes_the_whole_data_set() -> None:
    first_half = {v.sample // 10 for v in SampleOrder([10] * 6, 0, 0).visits(0, 30)}
    assert len(first_half) > 3


def test_another_seed_is_another_order() -> None:
    assert SampleOrder([50], 0, 1).visits(0, 50) != SampleOrder([50], 1, 1).visits(0, 50)


def test_neighbours_are_the_block_a_position_lies_in() -> None:
    order = SampleOrder([3, 4, 5, 2], 0, 2)
    for position in range(14):
        around = order.neighbours(position).tolist()
        assert order.visits(position, 1)[0].sample in around
        assert len({part_of(sample, (3, 7, 12, 14)) for sample in around}) == 2


def part_of(number: int, ends: tuple[int, ...]) -> int:
    """Which of the parts with these ends a number lies in."""
    return [number >= end for end in ends].count(True)


def test_the_plain_order_is_that_of_earlier_versions() -> None:
    """Older runs continue with the same samples, and the same draws from them."""
    visits = SampleOrder([5, 7, 4], 3, 2).visits(0, 32)
    first = [5, 8, 7, 1, 11, 0, 9, 10, 3, 4, 6, 2, 15, 14, 12, 13]
    second = [14, 12, 0, 1, 4, 13, 2, 3, 15, 5, 8, 10, 6, 9, 11, 7]
    assert [visit.sample for visit in visits] == first + second
    assert visits[16].key(seed=9) == "9/1/14"


@given(sizes, st.integers(0, 5), st.integers(0, 4))
def test_in_pairs_every_sample_comes_by_itself_once_an_epoch_and_a_near_one_follows(
    shards: list[int], seed: int, block: int
) -> None:
    total = sum(shards)
    visits = paired(shards, seed, block).visits(0, 4 * total)
    assert visits[::2] == SampleOrder(shards, seed, block).visits(0, 2 * total)
    for base, partner in zip(visits[::2], visits[1::2], strict=True):
        assert (partner.epoch, partner.beside) == (base.epoch, base.sample)
        assert (partner.sample - base.sample) % total in {n % total for n in (1, 2, 3)}


@given(sizes, st.integers(0, 60), st.integers(1, 40))
def test_any_stretch_of_pairs_is_what_the_whole_stream_holds_there(
    shards: list[int], start: int, count: int
) -> None:
    whole = paired(shards).visits(0, start + count)
    assert paired(shards).visits(start, count) == whole[start:]


@pytest.mark.parametrize(("batch", "ranks"), [(8, 4), (6, 2), (9, 3), (5, 5), (7, 1)])
def test_pairs_may_straddle_ranks_and_steps(batch: int, ranks: int) -> None:
    rows, whole = batch // ranks, paired([5, 7, 4]).visits(0, 6 * batch)
    shared = [
        visit
        for step in range(6)
        for rank in range(ranks)
        for visit in paired([5, 7, 4]).visits(step * batch + rank * rows, rows)
    ]
    assert shared == whole


def test_each_of_the_nearest_is_drawn_about_as_often() -> None:
    visits = paired([30], k=3).visits(0, 2 * 30 * 50)
    steps = [(b.sample - a.sample) % 30 for a, b in zip(visits[::2], visits[1::2], strict=True)]
    assert set(steps) == {1, 2, 3}
    assert all(abs(steps.count(each) - 500) < 90 for each in (1, 2, 3))  # 5 standard deviations


def test_two_visits_of_a_sample_in_an_epoch_are_drawn_from_anew() -> None:
    visits = paired([5, 7, 4]).visits(0, 64)
    assert len({visit.key(0) for visit in visits}) == 64
    assert Visit(2, 7, beside=4).key(0) == "0/2/7/4"


def test_a_sample_without_neighbours_is_followed_by_one_of_its_block() -> None:
    nearest = np.full((14, 2), NO_NEIGHBOR, dtype=np.int32)
    nearest[3] = [8, NO_NEIGHBOR]
    plain = SampleOrder([3, 4, 5, 2], 0, 2)
    order = PairedOrder(plain, nearest, 0)
    for place in range(28):
        base, partner = order.visits(2 * place, 2)
        if base.sample == 3:
            assert partner.sample == 8
        else:
            assert partner.sample in plain.neighbours(place)


def test_neighbours_of_a_pair_are_the_block_its_first_lies_in() -> None:
    plain, order = SampleOrder([3, 4, 5, 2], 1, 2), paired([3, 4, 5, 2])
    for position in range(28):
        assert order.neighbours(position).tolist() == plain.neighbours(position // 2).tolist()


FOLDERS = [[5, 7, 4], [3, 3], [2]]
"""Samples in the shards of three folders: 16, 6 and 2."""


def mixed(seed: int = 3) -> MixedOrder:
    return MixedOrder(FOLDERS, (4, 2, 1), seed, 2)


def folder_of(sample: int) -> int:
    return part_of(sample, (16, 22))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=7))
def test_among_any_first_positions_each_folder_has_its_share_within_one(
    proportions: list[int],
) -> None:
    period = interleaved(proportions)
    position = np.arange(len(period) + 1)
    assert len(period) == sum(proportions)
    for folder, own in enumerate(proportions):
        had = np.cumsum([0, *(period == folder)])
        assert (abs(had * len(period) - position * own) < len(period)).all()
        assert had[-1] == own


def test_folders_alternate_as_evenly_as_their_proportions_allow() -> None:
    assert interleaved([3, 1]).tolist() == [0, 0, 0, 1]
    assert interleaved([1, 1]).tolist() == [0, 1]
    assert interleaved([2, 5]).tolist() == [1, 1, 0, 1, 1, 0, 1]


@given(st.integers(0, 5), st.integers(0, 200))
def test_a_mix_passes_through_each_folder_in_an_order_of_its_own(seed: int, count: int) -> None:
    """Whose visits are those of the folder alone; in one pass each of its samples comes once."""
    visits = mixed(seed).visits(0, count)
    for folder, (sizes, first) in enumerate(zip(FOLDERS, (0, 16, 22), strict=True)):
        own = [visit for visit in visits if folder_of(visit.sample) == folder]
        alone = SampleOrder(sizes, seed, 2, folder).visits(0, len(own))
        assert own == [visit._replace(sample=first + visit.sample) for visit in alone]
    assert len({visit.key(seed) for visit in visits}) == count


def test_a_folder_that_is_used_up_starts_again_in_a_new_order() -> None:
    visits = MixedOrder([[30], [30]], (3, 1), 0, 16).visits(0, 240)
    passes = [[v.sample for v in visits if v.sample < 30 and v.epoch == n] for n in range(6)]
    assert all(sorted(one) == list(range(30)) for one in passes)
    assert len({tuple(one) for one in passes}) == 6
    other = [v.sample - 30 for v in visits if v.sample >= 30 and v.epoch == 0]
    assert sorted(other) == list(range(30))
    assert other != passes[0]  # folders of equal sizes are shuffled differently


@given(st.integers(0, 90), st.integers(1, 40))
def test_any_stretch_of_a_mix_is_what_the_whole_stream_holds_there(start: int, count: int) -> None:
    assert mixed().visits(start, count) == mixed().visits(0, start + count)[start:]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_a_step_of_a_mix_without_gap_or_repetition(ranks: int) -> None:
    rows, whole = 8 // ranks, mixed().visits(0, 48)
    shared = [
        visit
        for step in range(6)
        for rank in range(ranks)
        for visit in mixed().visits(step * 8 + rank * rows, rows)
    ]
    assert shared == whole


def test_neighbours_and_shards_ahead_of_a_mix_are_those_of_its_folders() -> None:
    order = mixed()
    for position, visit in enumerate(order.visits(0, 100)):
        around = order.neighbours(position).tolist()
        assert visit.sample in around
        assert {folder_of(sample) for sample in around} == {folder_of(visit.sample)}
        ahead = order.shards_ahead(position)
        shard = part_of(visit.sample, (5, 12, 16, 19, 22))
        assert shard in ahead
        assert {part_of(number, (3, 5)) for number in ahead} == {0, 1, 2}


def test_a_mix_of_one_folder_is_its_plain_order() -> None:
    plain = SampleOrder([5, 7, 4], 3, 2)
    alone = MixedOrder([[5, 7, 4]], (1,), 3, 2)
    assert alone.visits(0, 50) == plain.visits(0, 50)
    assert alone.neighbours(20).tolist() == plain.neighbours(20).tolist()
    assert alone.shards_ahead(20) == plain.shards_ahead(20)
