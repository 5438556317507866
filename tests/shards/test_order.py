"""The order is a pure function, so it is tested as one: no files, no ranks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnc_ds.shards.order import SampleOrder

sizes = st.lists(st.integers(1, 9), min_size=1, max_size=7)


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
        assert len({bisect_shard(sample) for sample in around}) == 2


def bisect_shard(sample: int) -> int:
    return [sample >= end for end in (3, 7, 12, 14)].count(True)
