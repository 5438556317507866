"""Batches that several processes read in parts: the same as one process reads at once."""

import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hnc_ds.config import DataConfig
from hnc_ds.errors import UserError
from hnc_ds.shards.format import read_shard_index
from hnc_ds.shards.images import Encoded, ImageSettings
from hnc_ds.shards.loader import Batch, TrainingData
from hnc_ds.training import feed
from hnc_ds.training.feed import batches, part_rows

SETTINGS = ImageSettings(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Letters:
    """A token for each letter, and 7 behind those of shorter captions."""

    padding = 7

    def __call__(self, captions: Sequence[str]) -> torch.Tensor:
        length = max(map(len, captions))
        return torch.tensor(
            [
                [*map(ord, caption), *[self.padding] * (length - len(caption))]
                for caption in captions
            ]
        )

    def used_tokens(self, token_TL: torch.Tensor) -> torch.Tensor:
        return (token_TL != self.padding).sum(dim=1)


def make(folder: Path, rows: range = range(24), **data: Any) -> TrainingData:
    return TrainingData(folder, DataConfig(**data), 5, 24, rows, SETTINGS, Letters())


def differing(first: Batch, second: Batch) -> list[str]:
    """Fields that are not the same to the byte, in type and in form."""
    pairs = zip(Batch._fields, first, second, strict=True)
    return [name for name, one, other in pairs if not same(one, other)]


def same(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor):
        return bool(one == other)
    kinds = {(part.dtype, part.shape, part.is_contiguous()) for part in (one, other)}
    return len(kinds) == 1 and torch.equal(one, other)


@pytest.mark.parametrize("rows", [1, 5, 8, 24])
def test_a_batch_read_in_parts_is_that_read_at_once(
    scene_shards: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(feed, "PART_ROWS", rows)
    data = make(scene_shards / "train", unrelated_negatives=2)
    expected = [data.batch(step) for step in range(2, 7)]
    lengths = {data.batch(2, range(at, at + 1)).token_TL.shape[1] for at in range(24)}
    assert len(lengths) > 1  # so that parts must be padded
    found = list(batches(data, range(2, 7), 2, pin=False))
    assert len(found) == 5
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Batch)
        assert differing(one, other) == []


def test_without_hard_negatives_and_on_a_later_rank_parts_join_too(
    scene_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "PART_ROWS", 5)
    for data in (
        make(scene_shards / "train", hard_negatives=0),
        make(scene_shards / "train", range(12, 24), unrelated_negatives=1),
    ):
        (found,) = batches(data, range(3, 4), 1, pin=False)
        assert isinstance(found, Batch)
        assert differing(found, data.batch(3)) == []


def test_neighbours_that_stand_in_are_the_same_however_a_batch_is_read(
    scene_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shards"
    shutil.copytree(scene_shards / "train", folder)
    samples = read_shard_index(folder, "shard-000000.tar").samples
    with (folder / "shard-000000.tar").open("r+b") as tar:
        for sample in samples[::3]:
            tar.seek(sample.image_offset)
            tar.write(b"\0" * sample.image_bytes)
    monkeypatch.setattr(feed, "PART_ROWS", 5)
    data = make(folder)
    whole = data.batch(0)
    assert len(whole.corrupt) > 3
    (found,) = batches(data, range(1), 2, pin=False)
    assert isinstance(found, Batch)
    assert differing(found, whole) == []
    halves = [make(folder, rows).batch(0) for rows in (range(12), range(12, 24))]  # as two ranks
    joined = torch.cat([half.image_index_B for half in halves])
    assert torch.equal(joined, whole.image_index_B)


def test_a_problem_in_one_part_is_the_batch_s_and_the_next_batch_is_whole(
    scene_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "PART_ROWS", 5)
    data = make(scene_shards / "train")
    read = data.drawn

    def broken(step: int, part: range | None = None) -> tuple[Batch, Encoded | None]:
        if step == 1 and part == range(10, 15):
            raise UserError("damaged")
        return read(step, part)

    monkeypatch.setattr(data, "drawn", broken)
    first, second, third = batches(data, range(3), 2, pin=False)
    assert isinstance(second, UserError)
    assert str(second) == "damaged"
    for found, step in ((first, 0), (third, 2)):
        assert isinstance(found, Batch)
        assert differing(found, read(step)[0]) == []


def test_parts_of_all_workers_fit_into_the_shared_memory_there_is() -> None:
    image = 3 * 224 * 224
    assert part_rows(image, 8, float("inf")) == feed.PART_ROWS
    for workers in (1, 8, 16):
        for room in (2**25, 2**28, 2**31):
            rows = part_rows(image, workers, room)
            # Two parts of each worker, and one that is being joined.
            assert rows * image * (2 * workers + 1) <= room or rows == 1
    assert part_rows(image, 16, 0) == 1


def test_a_thread_reads_no_more_than_reported_ahead_and_ends_with_its_reader() -> None:
    read, came = [], threading.Semaphore(0)

    def numbers() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            came.release()
            yield number

    before = set(threading.enumerate())
    found = feed.ahead(numbers(), 2)
    for _ in range(2):
        assert came.acquire(timeout=10)
    assert next(found) == 0
    assert came.acquire(timeout=10)
    assert not came.acquire(timeout=0.2)  # one is taken, two wait
    assert read == [0, 1, 2]
    found.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) <= before


def test_the_thread_works_with_the_device_of_this_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread begins with the first device, on which it would take memory from another rank."""
    mine = threading.local()
    mine.device = 3

    class Module:
        def current_device(self) -> int:
            return int(getattr(mine, "device", 0))

        def set_device(self, index: int) -> None:
            mine.device = index

    monkeypatch.setattr(torch, "get_device_module", Module)

    def used() -> Iterator[int]:
        yield Module().current_device()

    assert list(feed.ahead(used(), 2, on_device=True)) == [3]
    assert list(feed.ahead(used(), 2)) == [0]


def test_all_that_is_read_comes_in_order_and_what_is_raised_is_raised_where_it_is_waited_for() -> (
    None
):
    assert list(feed.ahead(iter(range(50)), 3)) == list(range(50))

    def broken() -> Iterator[int]:
        yield 1
        raise MemoryError("gone")

    found = feed.ahead(broken(), 2)
    assert next(found) == 1
    with pytest.raises(MemoryError, match="gone"):
        next(found)


def test_a_batch_given_up_half_way_leaves_neither_workers_nor_threads(scene_shards: Path) -> None:
    import multiprocessing

    before = set(threading.enumerate())
    found = batches(make(scene_shards / "train"), range(50), 2, pin=False)
    next(found)
    assert len(multiprocessing.active_children()) == 2
    found.close()  # type: ignore[attr-defined]
    del found
    assert not multiprocessing.active_children()
    # A queue's own thread is signalled to end, and only this test waits for it.
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert "batches" not in {thread.name for thread in left}
    for thread in left:
        thread.join(60)
        assert not thread.is_alive()
